// Everything between a worker's slice and a loaded backend: dtypes, program, weights, KV size.
import type { ModelConfig, WorkerSlice } from '../common/config.ts';
import { exitCodes, StartError } from '../common/errors.ts';
import type { Backend } from '../kernels/backend.ts';
import { blockBytes, type Dtype } from '../kernels/program.ts';
import { defaultNumThreads } from './cpu-limits.ts';
import { numKvBlocks } from './kv-size.ts';
import { buildProgram } from './program/build.ts';
import { Checkpoint } from './weights/checkpoint.ts';
import { dummyWeights } from './weights/dummy-weights.ts';
import { loadWeights } from './weights/load-weights.ts';

export interface LoadedModel {
  readonly device: string;
  /** Of activations; weights keep the checkpoint's. */
  readonly dtype: Dtype;
  readonly kvCacheDtype: Dtype;
  readonly numBlocks: number;
  readonly blockBytes: number;
  readonly vocabSize: number;
  readonly memory: Readonly<Record<string, number>>;
}

/** Throws StartError that names file and tensor, or flag. */
export async function loadModel(backend: Backend, slice: WorkerSlice): Promise<LoadedModel> {
  const { model, blockSize, maxNumSeqs, maxModelLen, maxNumBatchedTokens } = slice;
  const { dtype, kvCacheDtype } = chooseDtypes(slice);
  const program = buildProgram(model, {
    actDtype: dtype,
    weightDtype: model.dtype,
    kvDtype: kvCacheDtype,
    interleave: 0,
    maxNumTokens: maxNumBatchedTokens,
    maxNumLogits: Math.min(maxNumSeqs, maxNumBatchedTokens),
  });
  const bytesPerBlock = blockBytes(program.kvGroups[0]!, blockSize);
  const numBlocks = numKvBlocks({
    blockBytes: bytesPerBlock,
    blockSize,
    maxNumSeqs,
    maxModelLen,
    kvCacheMemoryBytes: slice.kvCacheMemoryBytes,
    availableBytes: process.availableMemory(),
  });
  const weights =
    slice.loadFormat === 'dummy'
      ? dummyWeights(program, slice.seed)
      : loadWeights(program, Checkpoint.open(model.path));
  const { device, memory } = await backend.load({
    program,
    weights,
    blockSize,
    numBlocks,
    maxNumSeqs,
    maxModelLen,
    numThreads: slice.numThreads || defaultNumThreads(),
    asyncDepth: slice.asyncDepth,
    fastMath: slice.fastMath,
    debugSync: slice.debugSync,
  });
  const { vocabSize } = model;
  return { device, dtype, kvCacheDtype, numBlocks, blockBytes: bytesPerBlock, vocabSize, memory };
}

function chooseDtypes({ device, dtype, kvCacheDtype }: WorkerSlice): {
  dtype: ModelConfig['dtype'];
  kvCacheDtype: ModelConfig['dtype'];
} {
  const act = dtype === 'auto' ? 'f32' : dtype;
  const kv = kvCacheDtype === 'auto' ? 'f32' : kvCacheDtype;
  if (device === 'cpu' && act !== 'f32')
    throw new StartError(
      exitCodes.badFlag,
      `--dtype ${act} is not built on cpu: activations are f32 there, weights keep their own dtype`,
    );
  if (device === 'cpu' && kv === 'f16')
    throw new StartError(
      exitCodes.badFlag,
      '--kv-cache-dtype f16 is not built on cpu; supported: f32, bf16',
    );
  return { dtype: act, kvCacheDtype: kv };
}
