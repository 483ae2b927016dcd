// Loads a model folder into a backend, with limits that suit tests.
import { readModelConfig } from '../../common/model-config.ts';
import type { Backend, BackendInfo, BackendLoad } from '../../kernels/backend.ts';
import type { Program } from '../../kernels/program.ts';
import { buildProgram } from '../../worker/program/build.ts';
import { Checkpoint } from '../../worker/weights/checkpoint.ts';
import { loadWeights } from '../../worker/weights/load-weights.ts';

export const demoFolder = 'models/demo';

export interface TestLoad extends Partial<Omit<BackendLoad, 'program' | 'weights'>> {
  readonly maxNumTokens?: number;
  readonly maxNumLogits?: number;
  readonly interleave?: number;
  readonly actDtype?: 'f32' | 'f16' | 'bf16';
  readonly kvDtype?: 'f32' | 'f16' | 'bf16';
}

export async function loadFolder(
  backend: Backend,
  folder: string,
  options: TestLoad = {},
): Promise<BackendInfo> {
  const config = readModelConfig(folder);
  const { maxNumTokens, maxNumLogits, interleave, actDtype, kvDtype, ...rest } = options;
  const program = buildProgram(config, {
    actDtype: actDtype ?? 'f32',
    weightDtype: config.dtype,
    kvDtype: kvDtype ?? 'f32',
    interleave: interleave ?? 0,
    maxNumTokens: maxNumTokens ?? 512,
    maxNumLogits: maxNumLogits ?? 32,
    ...(rest.group && { parallel: rest.group }),
  });
  return backend.load(loadOf(program, folder, rest));
}

/** What a backend is told beside the program: limits that suit tests, unless `options` say other. */
export function loadOf(
  program: Program,
  folder: string,
  options: Partial<BackendLoad> = {},
): BackendLoad {
  return {
    program,
    weights: options.weights ?? loadWeights(program, Checkpoint.open(folder)),
    blockSize: 16,
    numBlocks: 256,
    kvCacheMemoryBytes: null,
    memoryUtilization: 1,
    fitModelLen: false,
    dummySeed: null,
    maxNumSeqs: 32,
    maxModelLen: 1024,
    maxLogprobs: 20,
    numThreads: 1,
    asyncDepth: 2,
    fastMath: false,
    enforceEager: false,
    debugSync: true,
    ...options,
  };
}
