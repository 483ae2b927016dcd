// Which numbers of ranks a model can be split over, and how many KV heads a rank then has. Known to
// the command line, which refuses the others, and to the pass that splits the program.
import type { ModelConfig } from './config.ts';

type Sizes = Pick<ModelConfig, 'numHeads' | 'numKvHeads' | 'intermediateSize'>;

/** Why the model cannot be split over so many ranks; null if it can. */
export function whyNotSplit(model: Sizes, numRanks: number): string | null {
  const { numHeads, numKvHeads, intermediateSize } = model;
  if (numHeads % numRanks !== 0)
    return `the model's ${numHeads} attention heads do not divide by ${numRanks}`;
  if (numKvHeads % numRanks !== 0 && numRanks % numKvHeads !== 0)
    return `the model's ${numKvHeads} KV heads neither divide by ${numRanks} nor divide it`;
  if (intermediateSize % numRanks !== 0)
    return `the model's intermediate size ${intermediateSize} does not divide by ${numRanks}`;
  return null;
}
