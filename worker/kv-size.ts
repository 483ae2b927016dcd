// How many KV blocks fit: what the operator said, else a share of memory that leaves the machine
// usable, never more than every row at full length could fill.
import { exitCodes, StartError } from '../common/errors.ts';
import { maxBlocksHeld } from '../common/kv-window.ts';

const maxDefaultBytes = 4 * 1024 ** 3;
const availableShare = 0.4;
/** The engine keeps columns of every block: no memory is so large that it would need more. */
const maxBlocks = 2 ** 26;

/** What decides how many blocks one request of full length holds at most. */
export interface RequestSize {
  readonly blockSize: number;
  readonly maxModelLen: number;
  /** 0 = full attention. */
  readonly slidingWindow: number;
  readonly maxNumBatchedTokens: number;
  /** Less than one request of full length will do. */
  readonly fitModelLen: boolean;
}

export interface KvSizeRequest extends RequestSize {
  /** Bytes of one block over all layers. */
  readonly blockBytes: number;
  readonly maxNumSeqs: number;
  /** --kv-cache-memory-bytes, null = decided here. */
  readonly kvCacheMemoryBytes: number | null;
  /** Memory that this process could still take, within its cgroup, for weights and KV cache. */
  readonly availableBytes: number;
  readonly weightBytes: number;
}

/** Blocks of the pool, the null block included. Throws StartError if not one request fits. */
export function numKvBlocks(request: KvSizeRequest): number {
  const { blockBytes, maxNumSeqs, maxModelLen, kvCacheMemoryBytes } = request;
  const { availableBytes, weightBytes } = request;
  const blocksPerRequest = blocksOf(request);
  const share = Math.floor(Math.max(0, availableBytes - weightBytes) * availableShare);
  const bytes = kvCacheMemoryBytes ?? Math.min(maxDefaultBytes, share);
  const decided =
    share > maxDefaultBytes
      ? 'the most that is taken unasked'
      : `40 % of what weights of ${weightBytes} leave of ${availableBytes}`;
  const origin = kvCacheMemoryBytes === null ? ` (${decided})` : '';
  const useful = maxNumSeqs * blocksPerRequest + 1;
  const numBlocks = Math.min(Math.floor(bytes / blockBytes), useful, maxBlocks);
  const needed = (blocksPerRequest + 1) * blockBytes;
  if (numBlocks < leastBlocks(request))
    throw new StartError(
      exitCodes.badFlag,
      `the KV cache has ${bytes} bytes${origin}, but one request of ${maxModelLen} tokens needs ` +
        `${needed}: raise --kv-cache-memory-bytes${orLower(tokensIn(numBlocks, request))}`,
    );
  return numBlocks;
}

/** Tokens that blocks hold beside the null block. */
const tokensIn = (numBlocks: number, { blockSize }: RequestSize) =>
  Math.max(0, numBlocks - 1) * blockSize;

const orLower = (numTokens: number) =>
  numTokens > 0 ? `, or lower --max-model-len to ${numTokens} or less` : '';

/** That the backend's blocks hold one request of full length; block 0 is nobody's. */
export function checkKvBlocks(numBlocks: number, request: RequestSize): void {
  const numTokens = tokensIn(numBlocks, request);
  if (numBlocks < leastBlocks(request))
    throw new StartError(
      exitCodes.badFlag,
      `the KV cache holds ${numTokens} tokens, less than one request of ${request.maxModelLen}: ` +
        `raise --gpu-memory-utilization or --kv-cache-memory-bytes${orLower(numTokens)}`,
    );
}

/** The null block, and those of one request: of full length, or of any. */
const leastBlocks = (request: RequestSize) => 1 + (request.fitModelLen ? 1 : blocksOf(request));

const blocksOf = (request: RequestSize) =>
  maxBlocksHeld(request.maxModelLen, request.slidingWindow, request);
