// Successive outputs of one choice as one, as if they had come together.
import type { RequestOutput, TokenLogprobs } from '../engine-client-types.ts';

/** At least one output, in order. */
export function mergeOutputs(outputs: readonly RequestOutput[]): RequestOutput {
  const last = outputs[outputs.length - 1]!;
  if (outputs.length === 1) return last;
  const numTokens = outputs.reduce((sum, output) => sum + output.tokenIds.length, 0);
  const tokenIds = new Int32Array(numTokens);
  let offset = 0;
  for (const output of outputs) {
    tokenIds.set(output.tokenIds, offset);
    offset += output.tokenIds.length;
  }
  return {
    ...last,
    text: outputs.map((output) => output.text).join(''),
    tokenIds,
    logprobs: mergeLogprobs(outputs),
    promptLogprobs: mergePromptLogprobs(outputs),
    creditBytes: outputs.reduce((sum, output) => sum + output.creditBytes, 0),
  };
}

function mergeLogprobs(outputs: readonly RequestOutput[]): readonly TokenLogprobs[] | null {
  const lists = outputs.flatMap((output) => (output.logprobs === null ? [] : [output.logprobs]));
  return lists.length === 0 ? null : lists.flat();
}

function mergePromptLogprobs(
  outputs: readonly RequestOutput[],
): ReadonlyMap<number, TokenLogprobs> | null {
  const maps = outputs.flatMap((output) => output.promptLogprobs ?? []);
  return maps.length === 0 ? null : new Map(maps.flatMap((map) => [...map]));
}
