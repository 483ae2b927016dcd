// What is said of a request that does not fit the context, wherever that is found: in vLLM's words,
// and with its names for what is at fault.
import { RequestError } from './errors.ts';

const advice =
  'Please reduce the length of the input prompt or the number of requested output tokens.';

/**
 * Throws RequestError where a prompt and its output, of at least one token, are longer than
 * `maxModelLen`. `maxTokens` null = not said; `field` is what said it.
 */
export function checkContextLength(
  maxModelLen: number,
  numPromptTokens: number,
  maxTokens: number | null,
  field = 'max_tokens',
): void {
  const numOutputTokens = Math.max(1, maxTokens ?? 1);
  const total = numPromptTokens + numOutputTokens;
  if (total <= maxModelLen) return;
  throw new RequestError(
    'context_length_exceeded',
    `This model's maximum context length is ${maxModelLen} tokens. However, you requested ` +
      `${numOutputTokens} output tokens and your prompt contains ${numPromptTokens} input tokens, ` +
      `for a total of ${total} tokens. ${advice}`,
    numPromptTokens >= maxModelLen ? 'input_tokens' : field,
  );
}

/** Of a text that is too long whatever its tokens are: more than `maxCharacters`. */
export function textTooLong(
  maxModelLen: number,
  numCharacters: number,
  maxCharacters: number,
): RequestError {
  return new RequestError(
    'context_length_exceeded',
    `This model's maximum context length is ${maxModelLen} tokens. However, your prompt contains ` +
      `${numCharacters} characters, and so many tokens have at most ${maxCharacters}. ${advice}`,
    'input_text',
  );
}
