// The request's fields as the engine's parameters: server defaults, greedy's rules, the model's
// vocabulary and the room that the prompt leaves in the context.
import type { HttpConfig } from '../../common/config.ts';
import { checkContextLength } from '../../common/context-length.ts';
import { RequestError } from '../../common/errors.ts';
import {
  defaultSamplingParams,
  defaultTextParams,
  isGreedy,
  minTemperature,
  type RepetitionDetection,
  type SamplingParams,
  type TextParams,
} from '../../common/sampling-params.ts';
import type { GenerateRequest } from '../engine-client-types.ts';
import type { HttpBackend, TextServiceLike } from './backend.ts';
import { maxModelLen, warnOnce, type HttpContext } from './context.ts';
import type { SamplingFields } from './schema/sampling-fields.ts';

/**
 * What requests may have unread between them: half of what the detokenizer sends ahead of a frontend
 * (EngineClient's credit), so that however many readers stand still, the others get theirs.
 */
const unreadBytes = 32 * 1024 * 1024;
const minCreditBytes = 16 * 1024;

/** What differs between the two generate routes. */
export interface RouteSampling {
  /** Alternatives per output token; null = none, -1 = the whole vocabulary. */
  readonly logprobs: number | null;
  /** Name of the field that said it. */
  readonly logprobsField: string;
  /** Where prompt_logprobs is not said. */
  readonly promptLogprobs: number | null;
  /** As the client said it; null = not said. */
  readonly maxTokens: number | null;
  /** Name of the field that said it. */
  readonly maxTokensField: string;
  /** Where nobody said: vLLM's 16 for completions, null for all that fits. */
  readonly defaultMaxTokens: number | null;
}

/** Everything but maxTokens, which depends on each prompt's length. */
export async function samplingParams(
  fields: SamplingFields,
  route: RouteSampling,
  context: HttpContext,
  { client, text }: HttpBackend,
): Promise<SamplingParams> {
  const { config } = context;
  const { vocabSize } = client.info;
  const defaults = { ...defaultSamplingParams, ...config.defaultSampling };
  let temperature = fields.temperature ?? defaults.temperature;
  const greedy = isGreedy({ temperature });
  if (greedy) temperature = 0;
  else if (temperature < minTemperature) {
    temperature = minTemperature;
    warnOnce(context, `a temperature below ${minTemperature} is taken as ${minTemperature}`);
  }
  const params: SamplingParams = {
    temperature,
    topP: greedy ? 1 : (fields.top_p ?? defaults.topP),
    topK: greedy ? 0 : Math.max(0, fields.top_k ?? defaults.topK),
    minP: greedy ? 0 : (fields.min_p ?? defaults.minP),
    presencePenalty: fields.presence_penalty ?? 0,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    repetitionPenalty: fields.repetition_penalty ?? defaults.repetitionPenalty,
    seed: fields.seed ?? null,
    maxTokens: null,
    minTokens: fields.min_tokens ?? 0,
    stopTokenIds: fields.stop_token_ids ?? [],
    ignoreEos: fields.ignore_eos ?? false,
    logprobs: numLogprobs(route.logprobs, vocabSize),
    promptLogprobs: numLogprobs(fields.prompt_logprobs ?? route.promptLogprobs, vocabSize),
    logprobTokenIds: distinctIds(fields.logprob_token_ids),
    logitBias: nullIfEmpty(fields.logit_bias),
    allowedTokenIds: fields.allowed_token_ids ?? null,
    badWords: await badWordIds(fields.bad_words ?? [], text, config.limits.badWordTokens),
    repetitionDetection: repetitionDetection(fields.repetition_detection),
  };
  checkRules(fields, params, greedy, route, config);
  checkVocabulary(fields, vocabSize);
  return params;
}

/** One prompt of a request, as the engine takes it. `sampling` is what samplingParams made. */
export function generateRequest(
  promptTokenIds: Int32Array,
  fields: SamplingFields,
  sampling: SamplingParams,
  route: RouteSampling,
  context: HttpContext,
): GenerateRequest {
  const maxTokens = maxTokensFor(promptTokenIds.length, sampling.minTokens, route, context);
  return {
    promptTokenIds,
    sampling: { ...sampling, maxTokens },
    text: textParams(fields, context),
    n: fields.n ?? 1,
    priority: fields.priority ?? 0,
    cacheSalt: fields.cache_salt ?? null,
  };
}

/** Room for the output of one prompt: what was asked for, or as much as there is. */
function maxTokensFor(
  numPromptTokens: number,
  minTokens: number,
  route: RouteSampling,
  context: HttpContext,
): number {
  const most = maxModelLen(context);
  const asked = route.maxTokens;
  checkContextLength(most, numPromptTokens, asked, route.maxTokensField);
  const room = most - numPromptTokens;
  const fallback = context.config.defaultSampling.maxTokens ?? route.defaultMaxTokens ?? room;
  const maxTokens = Math.max(1, asked ?? Math.min(room, fallback));
  if (minTokens > maxTokens) {
    throw bad(
      'min_tokens',
      `must not be greater than the ${maxTokens} tokens that may be generated`,
    );
  }
  return maxTokens;
}

function textParams(fields: SamplingFields, { config, backend }: HttpContext): TextParams {
  const defaults = defaultTextParams;
  const share = Math.floor(unreadBytes / (backend()?.client.info.maxNumSeqs ?? 1));
  return {
    ...defaults,
    stop: fields.stop ?? [],
    includeStopStrInOutput: fields.include_stop_str_in_output ?? defaults.includeStopStrInOutput,
    skipSpecialTokens: fields.skip_special_tokens ?? defaults.skipSpecialTokens,
    spacesBetweenSpecialTokens:
      fields.spaces_between_special_tokens ?? defaults.spacesBetweenSpecialTokens,
    returnTokenIds: fields.return_token_ids ?? false,
    streamInterval: fields.stream_interval ?? config.streamInterval,
    finalOnly: !(fields.stream ?? false),
    creditBytes: Math.max(minCreditBytes, Math.min(defaults.creditBytes, share)),
  };
}

function checkRules(
  fields: SamplingFields,
  params: SamplingParams,
  greedy: boolean,
  route: RouteSampling,
  config: HttpConfig,
): void {
  if (greedy && (fields.n ?? 1) > 1) throw bad('n', 'must be 1 when temperature is 0');
  if (params.logprobs !== null && params.logprobs > config.maxLogprobs) {
    throw bad(route.logprobsField, `must be at most ${config.maxLogprobs}`);
  }
  if (params.promptLogprobs !== null && params.promptLogprobs > config.maxLogprobs) {
    throw bad('prompt_logprobs', `must be at most ${config.maxLogprobs}`);
  }
  if (params.logprobTokenIds !== null && params.logprobs === null) {
    throw bad('logprob_token_ids', 'needs logprobs');
  }
  if (fields.stream && (fields.prompt_logprobs ?? 0) !== 0) {
    throw bad('prompt_logprobs', 'must be 0 with stream');
  }
  if (fields.stream_options !== undefined && !fields.stream) {
    throw bad('stream_options', 'needs stream');
  }
  if ((fields.priority ?? 0) !== 0 && !config.priorityScheduling) {
    throw bad('priority', 'needs a server with --scheduling-policy priority');
  }
}

function checkVocabulary(fields: SamplingFields, vocabSize: number): void {
  const lists = {
    stop_token_ids: fields.stop_token_ids,
    logprob_token_ids: fields.logprob_token_ids,
    logit_bias: fields.logit_bias?.ids,
    allowed_token_ids: fields.allowed_token_ids,
  };
  for (const [param, ids] of Object.entries(lists)) {
    if (ids?.some((id) => id >= vocabSize)) {
      throw bad(param, `has a token id that is not below the vocabulary's ${vocabSize}`);
    }
  }
  if ((fields.allowed_token_ids?.length ?? 0) > vocabSize) {
    throw bad('allowed_token_ids', `has more ids than the vocabulary's ${vocabSize}`);
  }
}

/**
 * A word as it is at the start of the text and as it is after a space. The latter is left out where
 * it ends with the former, which bans it already. (vLLM leaves it out where it has another number
 * of tokens too, and then the word goes unhindered after every space.)
 */
async function badWordIds(
  words: readonly string[],
  text: TextServiceLike,
  maxTokens: number,
): Promise<number[][]> {
  const runs: number[][] = [];
  const encode = async (value: string) =>
    Array.from(await text.encode(value, { addSpecialTokens: false }));
  for (const word of words) {
    const bare = await encode(word.trimStart());
    const spaced = await encode(` ${word.trimStart()}`);
    for (const run of endsWith(spaced, bare) ? [bare] : [bare, spaced]) {
      if (run.length === 0 || run.length > maxTokens)
        throw bad('bad_words', `has a word that is not 1 to ${maxTokens} tokens long`);
      runs.push(run);
    }
  }
  return runs;
}

function endsWith(ids: readonly number[], end: readonly number[]): boolean {
  return end.every((id, i) => ids[ids.length - end.length + i] === id);
}

/** The whole vocabulary, or a number that may be larger: there are no more ids than that. */
function numLogprobs(asked: number | null, vocabSize: number): number | null {
  return asked === -1 ? vocabSize : asked;
}

function distinctIds(ids: readonly number[] = []): readonly number[] | null {
  return ids.length === 0 ? null : [...new Set(ids)];
}

/** vLLM's rules; a largest size of 0 switches it off. */
function repetitionDetection(
  asked: SamplingFields['repetition_detection'],
): RepetitionDetection | null {
  if (asked === undefined) return null;
  const { max_pattern_size: largest, min_pattern_size: smallest, min_count: count } = asked;
  const [maxPatternSize, minPatternSize, minCount] = [largest ?? 0, smallest ?? 0, count ?? 0];
  if (minPatternSize > maxPatternSize) {
    throw bad('repetition_detection', 'needs a min_pattern_size of at most max_pattern_size');
  }
  if (maxPatternSize === 0) return null;
  if (minCount < 2) throw bad('repetition_detection', 'needs a min_count of 2 or more');
  return { minPatternSize: Math.max(1, minPatternSize), maxPatternSize, minCount };
}

function nullIfEmpty<T extends { readonly ids: readonly number[] }>(bias: T | undefined): T | null {
  return bias === undefined || bias.ids.length === 0 ? null : bias;
}

export function bad(param: string, rule: string): RequestError {
  return new RequestError('bad_request', `${param} ${rule}`, param);
}
