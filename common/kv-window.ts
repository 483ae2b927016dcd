// Which part of a request's KV cache a model with a sliding window still reads: the last `window`
// positions of each query, rounded down to a border of attention's key tiles, because kernels load
// whole tiles and mask what lies before the window. 0 = full attention, everything is read.

/** Keys of one attention tile (kernels/ops.ts): tiles begin at absolute multiples of it. */
const keyTile = 64;

/** First position that the query at `position`, and hence any later one, may still read. */
export function firstReadPosition(position: number, window: number): number {
  if (window === 0) return 0;
  return Math.max(0, Math.floor((position - window + 1) / keyTile) * keyTile);
}

/**
 * Blocks that a request of numTokens tokens holds at most at one time, where no step computes more
 * than maxNumBatchedTokens of it.
 */
export function maxBlocksHeld(
  numTokens: number,
  window: number,
  { blockSize, maxNumBatchedTokens }: { blockSize: number; maxNumBatchedTokens: number },
): number {
  const all = Math.ceil(numTokens / blockSize);
  if (window === 0) return all;
  const span = window - 1 + keyTile - 1 + maxNumBatchedTokens;
  return Math.min(all, Math.ceil(span / blockSize) + 1);
}

/** Length of the longest request, up to `most` tokens, that `numBlocks` blocks hold. */
export function longestHeld(
  most: number,
  numBlocks: number,
  window: number,
  sizes: { blockSize: number; maxNumBatchedTokens: number },
): number {
  if (maxBlocksHeld(most, window, sizes) <= numBlocks) return most;
  return numBlocks * sizes.blockSize;
}
