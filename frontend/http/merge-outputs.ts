// Successive outputs of one choice as one, as if they had come together.
import type { RequestOutput } from '../engine-client-types.ts';
import { LogprobList } from '../logprob-list.ts';

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
    logprobs: joinLogprobs(outputs, 'logprobs'),
    promptLogprobs: joinLogprobs(outputs, 'promptLogprobs'),
    creditBytes: outputs.reduce((sum, output) => sum + output.creditBytes, 0),
  };
}

function joinLogprobs(
  outputs: readonly RequestOutput[],
  field: 'logprobs' | 'promptLogprobs',
): LogprobList | null {
  return LogprobList.concat(outputs.flatMap((output) => output[field] ?? []));
}
