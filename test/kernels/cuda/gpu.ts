// What the tests of the cuda backend on a GPU share: whether there is one, and backends loaded with
// the demo model or with the one op `sample`.
import { existsSync } from 'node:fs';
import { readModelConfig } from '../../../common/model-config.ts';
import type { BackendLoad } from '../../../kernels/backend.ts';
import { CudaBackend } from '../../../kernels/cuda-backend.ts';
import type { Program } from '../../../kernels/program.ts';
import { buildProgram } from '../../../worker/program/build.ts';
import { defaultLoad, Harness, readParts } from '../cpu/harness.ts';
import { arg, makeProgram } from '../cpu/one-op.ts';
import { demoFolder } from '../demo-backend.ts';

/** For `skip`. */
export const noGpu = existsSync('/dev/nvidia0') ? false : 'no GPU: the cuda backend is not run';

export interface CudaOptions {
  readonly load?: Partial<BackendLoad>;
  readonly maxNumTokens?: number;
  readonly maxNumLogits?: number;
  readonly gateUpRows?: number;
}

export async function loadCuda(load: BackendLoad): Promise<Harness> {
  const backend = new CudaBackend();
  await backend.load(load);
  return new Harness(backend, load.program);
}

function load(
  program: Program,
  weights: BackendLoad['weights'],
  options: CudaOptions,
): Promise<Harness> {
  return loadCuda({ ...defaultLoad, debugSync: false, ...options.load, program, weights });
}

export async function loadDemo(options: CudaOptions = {}): Promise<Harness> {
  const program = buildProgram(readModelConfig(demoFolder), {
    actDtype: 'bf16',
    weightDtype: 'bf16',
    kvDtype: 'bf16',
    interleave: 8,
    maxNumTokens: options.maxNumTokens ?? 512,
    maxNumLogits: options.maxNumLogits ?? 64,
    ...(options.gateUpRows !== undefined && { gateUpRows: options.gateUpRows }),
  });
  return load(program, readParts(program, demoFolder), options);
}

/** A model of no layers: `sample` on logits that the test writes. */
export async function loadSampler(vocabSize: number, options: CudaOptions = {}): Promise<Harness> {
  const maxNumTokens = options.maxNumTokens ?? 64;
  const program = makeProgram(
    {
      ops: [{ op: 'sample', args: { logits: arg.buffer(0) }, attrs: {} }],
      buffers: [{ columns: vocabSize, logits: true }],
      rows: [],
      vocabSize,
      kv: { numLayers: 1, numKvHeads: 1, headDim: 64, dtype: 'bf16' },
    },
    maxNumTokens,
  );
  return load({ ...program, actDtype: 'bf16' }, [], options);
}
