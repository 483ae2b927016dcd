// Everything between a worker's slice and a loaded backend: dtypes, program, weights, KV size.
import type { WorkerSlice } from '../common/config.ts';
import type { Memory } from '../common/host-memory.ts';
import type { Backend, BackendLoad } from '../kernels/backend.ts';
import { blockBytes, type Dtype, type Program } from '../kernels/program.ts';
import { computeFormat } from './compute-format.ts';
import { defaultNumThreads } from './cpu-limits.ts';
import { checkKvBlocks, numKvBlocks } from './kv-size.ts';
import { buildProgram } from './program/build.ts';
import { Checkpoint } from './weights/checkpoint.ts';
import { dummyWeights } from './weights/dummy-weights.ts';
import { checkWeightsFit, loadWeights, weightBytes } from './weights/load-weights.ts';

export interface LoadedModel {
  readonly device: string;
  /** Of activations; on cpu, weights keep the checkpoint's. */
  readonly dtype: Dtype;
  readonly kvCacheDtype: Dtype;
  readonly numBlocks: number;
  readonly blockBytes: number;
  readonly vocabSize: number;
  readonly memory: Readonly<Record<string, number>>;
}

/** `note` is told what the operator should know. Throws StartError that names file and tensor, or flag. */
export async function loadModel(
  backend: Backend,
  slice: WorkerSlice,
  note: (line: string) => void,
): Promise<LoadedModel> {
  const { model, blockSize, maxNumSeqs, maxModelLen, maxNumBatchedTokens } = slice;
  const { notes: formatNotes, ...format } = computeFormat(slice);
  formatNotes.forEach(note);
  const program = buildProgram(model, {
    ...format,
    parallel: slice,
    maxNumTokens: maxNumBatchedTokens,
    maxNumLogits: Math.min(maxNumSeqs, maxNumBatchedTokens),
  });
  const bytesPerBlock = blockBytes(program.kvGroups[0]!, blockSize);
  const memory = localShare(slice);
  const {
    device,
    memory: ledger,
    numBlocks,
    notes,
  } = await backend.load({
    program,
    ...chooseWeights(program, slice, memory),
    ...chooseKvSize(bytesPerBlock, weightBytes(program), slice, memory),
    blockSize,
    maxNumSeqs,
    maxModelLen,
    fitModelLen: slice.fitModelLen,
    maxLogprobs: slice.maxLogprobs,
    numThreads:
      slice.numThreads || Math.max(1, Math.floor(defaultNumThreads() / slice.numLocalRanks)),
    ...rankGroup(slice),
    asyncDepth: slice.asyncDepth,
    fastMath: slice.fastMath,
    enforceEager: slice.enforceEager,
    debugSync: slice.debugSync,
  });
  notes.forEach(note);
  checkKvBlocks(numBlocks, { ...slice, slidingWindow: model.slidingWindow });
  return {
    device,
    dtype: format.actDtype,
    kvCacheDtype: format.kvDtype,
    numBlocks,
    blockBytes: bytesPerBlock,
    vocabSize: model.vocabSize,
    memory: ledger,
  };
}

/** Ranks on one host share its memory. */
function localShare({ numLocalRanks, hostMemory }: WorkerSlice): Memory {
  const { totalBytes, availableBytes } = hostMemory;
  return {
    totalBytes: Math.floor(totalBytes / numLocalRanks),
    availableBytes: Math.floor(availableBytes / numLocalRanks),
  };
}

function rankGroup(slice: WorkerSlice): Pick<BackendLoad, 'group'> {
  const { rank, numRanks, numLocalRanks, collectives } = slice;
  if (!collectives) return {};
  const { timeoutMs } = collectives;
  if (collectives.kind === 'sharedMemory')
    return { group: { rank, numRanks, path: collectives.path, timeoutMs } };
  // Each host has ranks that follow one another.
  const local = { rank: rank % numLocalRanks, numRanks: numLocalRanks };
  return { group: { rank, numRanks, path: '', timeoutMs, local, network: collectives } };
}

/** A GPU makes random weights itself: they need not cross the bus. */
function chooseWeights(
  program: Program,
  { loadFormat, device, seed, model }: WorkerSlice,
  { totalBytes }: Memory,
): Pick<BackendLoad, 'weights' | 'dummySeed'> {
  if (device === 'cuda' && loadFormat === 'dummy') return { weights: [], dummySeed: seed };
  // Before the fit is judged: a tensor of the wrong shape is the better news.
  const loaded = loadFormat === 'dummy' ? null : loadWeights(program, Checkpoint.open(model.path));
  if (device !== 'cuda') checkWeightsFit(program, model.path, totalBytes);
  return { weights: loaded ?? dummyWeights(program, seed), dummySeed: null };
}

/** A GPU's free memory is known only after everything else is on it: the backend decides. */
function chooseKvSize(
  bytesPerBlock: number,
  numWeightBytes: number,
  slice: WorkerSlice,
  { availableBytes }: Memory,
): Pick<BackendLoad, 'numBlocks' | 'kvCacheMemoryBytes' | 'memoryUtilization'> {
  const { kvCacheMemoryBytes, gpuMemoryUtilization: memoryUtilization } = slice;
  if (slice.device === 'cuda') return { numBlocks: null, kvCacheMemoryBytes, memoryUtilization };
  const numBlocks = numKvBlocks({
    blockBytes: bytesPerBlock,
    blockSize: slice.blockSize,
    maxNumSeqs: slice.maxNumSeqs,
    maxModelLen: slice.maxModelLen,
    fitModelLen: slice.fitModelLen,
    slidingWindow: slice.model.slidingWindow,
    maxNumBatchedTokens: slice.maxNumBatchedTokens,
    kvCacheMemoryBytes,
    availableBytes,
    weightBytes: numWeightBytes,
  });
  return { numBlocks, kvCacheMemoryBytes, memoryUtilization };
}
