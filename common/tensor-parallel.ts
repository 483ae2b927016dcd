// How a model is split over ranks: which attention heads, and which KV heads with them, a rank has,
// and what numbers of ranks there can be. Known to the command line, which refuses the others, and
// to the pass that splits the program.
import type { ModelConfig } from './config.ts';

type Heads = Pick<ModelConfig, 'numHeads' | 'numKvHeads'>;

export interface Parallel {
  readonly rank: number;
  readonly numRanks: number;
}

/** Why the model cannot be split over so many ranks; null if it can. */
export function whyNotSplit(
  { numHeads }: Pick<Heads, 'numHeads'>,
  numRanks: number,
): string | null {
  if (numHeads % numRanks === 0) return null;
  return `the model's ${numHeads} attention heads do not divide by ${numRanks}`;
}

/**
 * The model's KV heads that a rank holds, in its order: all its KV heads serve equally many of its
 * query heads, which are neighbours. A KV head of which it has queries beside others may stand
 * there twice; where there are fewer than ranks, several ranks hold the same one.
 */
export function kvHeadsOfRank(
  { numHeads, numKvHeads }: Heads,
  { rank, numRanks }: Parallel,
): number[] {
  const ofRank = numHeads / numRanks;
  const ofKvHead = numHeads / numKvHeads;
  const served = greatestDivisor(ofRank, ofKvHead);
  return Array.from({ length: ofRank / served }, (_, i) =>
    Math.floor((rank * ofRank + i * served) / ofKvHead),
  );
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
