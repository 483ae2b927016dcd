// The fields that completions and chat have in common, with their ranges; what the model's
// vocabulary and the context allow is checked later, in sampling.ts.
import * as z from 'zod';
import { isObject } from '../../../common/json-object.ts';
import type { HttpLimits } from '../../../common/limits.ts';
import { maxPatternTokens, repetitionPenaltyRange } from '../../../common/sampling-params.ts';
import { maxLogprobIds } from '../../../common/wire/step.ts';
import * as field from './fields.ts';

const streamOptions = z.object(
  {
    include_usage: field.boolean().nullish(),
    continuous_usage_stats: field.boolean().nullish(),
  },
  { error: 'must be an object' },
);

const patternSize = field.integer(0, maxPatternTokens).nullish();
const repetitionDetection = z.object(
  {
    max_pattern_size: patternSize,
    min_pattern_size: patternSize,
    min_count: field.integer(0, field.maxInt32).nullish(),
  },
  { error: 'must be an object' },
);

export const samplingFields = (limits: HttpLimits) => ({
  model: field.name().optional(),
  n: field.integer(1, limits.n).optional(),
  temperature: field.number(0, 2).optional(),
  top_p: field.number(0, 1, true).optional(),
  top_k: field.integer(-1, field.maxInt32).optional(),
  min_p: field.number(0, 1).optional(),
  presence_penalty: field.number(-2, 2).optional(),
  frequency_penalty: field.number(-2, 2).optional(),
  repetition_penalty: field.number(...repetitionPenaltyRange).optional(),
  seed: field.seed().optional(),
  stop: field.texts(limits.stop, limits.stopBytes).optional(),
  stop_token_ids: field.tokenIds(0, limits.stopTokenIds).optional(),
  include_stop_str_in_output: field.boolean().optional(),
  ignore_eos: field.boolean().optional(),
  bad_words: field.texts(limits.badWords, limits.badWordBytes).optional(),
  min_tokens: field.integer(0, field.maxInt32).optional(),
  prompt_logprobs: field.integer(-1, field.maxInt32).optional(),
  logprob_token_ids: field.tokenIds(0, maxLogprobIds).optional(),
  repetition_detection: repetitionDetection.optional(),
  logit_bias: field.logitBias(limits.logitBias).optional(),
  allowed_token_ids: field.tokenIds(1).optional(),
  skip_special_tokens: field.boolean().optional(),
  spaces_between_special_tokens: field.boolean().optional(),
  echo: field.boolean().optional(),
  stream: field.boolean().optional(),
  stream_options: streamOptions.optional(),
  stream_interval: field.integer(1, field.maxInt32).optional(),
  priority: field.integer(-field.maxInt32, field.maxInt32).optional(),
  cache_salt: field.text(limits.cacheSaltBytes).optional(),
  return_token_ids: field.boolean().optional(),
  return_tokens_as_token_ids: field.boolean().optional(),
  request_id: field.requestId().optional(),
});

export type SamplingFields = z.output<z.ZodObject<ReturnType<typeof samplingFields>>>;

/** Whether a value of a field that is not built yet asks for nothing. */
export type Neutral = (value: unknown) => boolean;

const never: Neutral = () => false;
const only =
  (...values: readonly unknown[]): Neutral =>
  (value) =>
    values.includes(value);
const empty: Neutral = (value) => isObject(value) && Object.keys(value).length === 0;

/** Known fields that are not built yet: refused by name unless their value asks for nothing. */
export const unsupportedFields: Readonly<Record<string, Neutral>> = {
  response_format: (value) => isObject(value) && value['type'] === 'text',
  structured_outputs: never,
  guided_json: never,
  guided_regex: never,
  guided_choice: never,
  guided_grammar: never,
  guided_decoding_backend: never,
  guided_whitespace_pattern: never,
  structural_tag: never,
  use_beam_search: only(false),
  length_penalty: only(1),
  best_of: only(1),
  truncate_prompt_tokens: never,
  truncation_side: never,
  prompt_embeds: never,
  thinking_token_budget: only(-1),
  return_prompt_text: only(false),
  session_id: never,
  kv_transfer_params: empty,
  ec_transfer_params: empty,
  vllm_xargs: empty,
  logits_processors: never,
};

/** Why a field is refused, where its name alone does not say it. */
export const reasons: Readonly<Record<string, string>> = {
  thinking_token_budget: 'it has no reasoning parser',
  include_reasoning: 'it has no reasoning parser, which would tell reasoning from the answer',
};

/** Documented as without effect. */
export const acceptedFields: readonly string[] = ['user'];
