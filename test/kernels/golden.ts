// The golden rows of a model folder (transformers, float32): prompts with greedy tokens, the gap
// between best and second best at each, and logprobs.
import { readFileSync } from 'node:fs';

export interface GoldenRow {
  readonly user: string;
  readonly prompt_ids: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly gaps: readonly number[];
  readonly greedy_logprobs: readonly number[];
  /** [id, logprob] best first, at the last prompt position. */
  readonly top10_last_prompt_position: readonly (readonly [number, number])[];
  readonly finish: string;
}

export function readGolden(file: string): readonly GoldenRow[] {
  return (JSON.parse(readFileSync(file, 'utf8')) as { rows: readonly GoldenRow[] }).rows;
}

/** Below this gap two runs may choose differently; what follows then is not compared. */
export const nearTie = 0.02;

/** How many of the first tokens are equal, and whether the rest is excused by a near tie. */
export function compareGreedy(
  row: GoldenRow,
  ids: readonly number[],
): { numEqual: number; isExcused: boolean } {
  const differs = row.greedy_ids.findIndex((id, i) => ids[i] !== id);
  if (differs < 0) return { numEqual: row.greedy_ids.length, isExcused: true };
  return { numEqual: differs, isExcused: row.gaps[differs]! < nearTie };
}
