// How many alternatives a request may ask for: --max-logprobs, held to what the model, the device
// and one message of a step can carry, so that nothing is allocated that cannot be sent.
import type { WorkerSlice } from '../../common/config.ts';
import { exitCodes, StartError } from '../../common/errors.ts';
import { maxLogprobsOnCuda, maxStepLogprobs } from '../../common/limits.ts';

interface Sizes {
  readonly vocabSize: number;
  readonly maxNumBatchedTokens: number;
}

/** `asked` is the flag's value, -1 = the whole vocabulary. Throws StartError. */
export function chooseMaxLogprobs(
  asked: number,
  device: WorkerSlice['device'],
  { vocabSize, maxNumBatchedTokens }: Sizes,
): number {
  const chosen = asked === -1 ? vocabSize : Math.min(asked, vocabSize);
  if (device === 'cuda' && chosen > maxLogprobsOnCuda)
    throw bad(asked, `the kernels on cuda list at most ${maxLogprobsOnCuda}`);
  // Every token of a step may be a prompt token that wants them, and the token itself is one more.
  const most = Math.floor(maxStepLogprobs / maxNumBatchedTokens) - 1;
  if (most < 0)
    throw new StartError(
      exitCodes.badFlag,
      `--max-num-batched-tokens: ${maxNumBatchedTokens} is more than a step can carry, at most ${maxStepLogprobs}`,
    );
  if (chosen > most)
    throw bad(
      asked,
      `with --max-num-batched-tokens ${maxNumBatchedTokens} a step carries ${most} a token; ` +
        `lower either (${chosen} need at most ${Math.floor(maxStepLogprobs / (chosen + 1))} tokens)`,
    );
  return chosen;
}

function bad(asked: number, why: string): StartError {
  return new StartError(exitCodes.badFlag, `--max-logprobs ${asked}: ${why}`);
}
