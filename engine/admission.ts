// The engine's door: an AddRequest may come from a stranger, so every field and range is checked
// before anything is made of it. Parameters are named as in HTTP.
import * as z from 'zod';
import { checkContextLength } from '../common/context-length.ts';
import { RequestError } from '../common/errors.ts';
import type { AddRequest } from '../common/wire/messages.ts';
import { maxLogprobIds } from '../common/wire/step.ts';
import type { SchedulerConfig } from '../common/config.ts';
import { maxRowLogprobs, type RequestLimits } from '../common/limits.ts';
import { isGreedy, maxPatternTokens, repetitionPenaltyRange } from '../common/sampling-params.ts';
import { stopIdsOf } from './stop-ids.ts';

export interface AdmissionOptions {
  readonly scheduler: SchedulerConfig;
  readonly vocabSize: number;
  readonly eosTokenIds: readonly number[];
  readonly maxLogprobs: number;
  readonly limits: RequestLimits;
}

const [minPenalty, maxPenalty] = repetitionPenaltyRange;
const u32 = z.int().min(0).max(0xffffffff);
const textBytes = (max: number) =>
  z
    .string()
    .min(1)
    .refine((text) => Buffer.byteLength(text) <= max, `must be at most ${max} bytes`);

const patternSize = z.int().min(1).max(maxPatternTokens);
const repetitionDetection = z
  .strictObject({
    minPatternSize: patternSize,
    maxPatternSize: patternSize,
    minCount: z.int().min(2).max(0x7fffffff),
  })
  .refine(
    ({ minPatternSize, maxPatternSize }) => minPatternSize <= maxPatternSize,
    'minPatternSize must be at most maxPatternSize',
  );

function makeSchema({ vocabSize, maxLogprobs, scheduler, limits }: AdmissionOptions) {
  const tokenId = z
    .int()
    .min(0)
    .max(vocabSize - 1);
  const numLogprobs = z.int().min(0).max(maxLogprobs).nullable();
  const sampling = z.strictObject({
    temperature: z.number().min(0).max(2),
    topP: z.number().gt(0).max(1),
    topK: z.int().min(-1).max(0x7fffffff),
    minP: z.number().min(0).max(1),
    presencePenalty: z.number().min(-2).max(2),
    frequencyPenalty: z.number().min(-2).max(2),
    repetitionPenalty: z.number().min(minPenalty).max(maxPenalty),
    seed: z.union([z.int().min(0), z.bigint().min(0n).max(0xffffffffffffffffn)]).nullable(),
    maxTokens: z.int().min(1).max(0x7fffffff).nullable(),
    minTokens: z.int().min(0).max(0x7fffffff),
    stopTokenIds: z.array(tokenId).max(limits.stopTokenIds),
    ignoreEos: z.boolean(),
    logprobs: numLogprobs,
    promptLogprobs: numLogprobs,
    logprobTokenIds: z.array(tokenId).min(1).max(maxLogprobIds).nullable(),
    logitBias: z
      .strictObject({
        ids: z.array(tokenId).max(limits.logitBias),
        values: z.array(z.number().min(-100).max(100)).max(limits.logitBias),
      })
      .refine(({ ids, values }) => ids.length === values.length, 'must have a value for each id')
      .nullable(),
    allowedTokenIds: z.array(tokenId).min(1).max(vocabSize).nullable(),
    // A word is one run of ids at the start of the text and another after a space.
    badWords: z.array(z.array(tokenId).min(1).max(limits.badWordTokens)).max(2 * limits.badWords),
    repetitionDetection: repetitionDetection.nullable(),
  });
  const text = z.strictObject({
    detokenize: z.boolean(),
    stop: z.array(textBytes(limits.stopBytes)).max(limits.stop),
    includeStopStrInOutput: z.boolean(),
    skipSpecialTokens: z.boolean(),
    spacesBetweenSpecialTokens: z.boolean(),
    returnTokenIds: z.boolean(),
    streamInterval: z.int().min(1).max(0x7fffffff),
    finalOnly: z.boolean(),
    creditBytes: u32,
  });
  return z.object({
    requestId: u32,
    n: z.int().min(1).max(limits.n),
    sampling,
    text,
    priority:
      scheduler.schedulingPolicy === 'priority'
        ? z.int()
        : z.literal(0, 'priority needs --scheduling-policy priority'),
    cacheSalt: textBytes(limits.cacheSaltBytes).nullable(),
  });
}

const bad = (param: string, message: string) => new RequestError('bad_request', message, param);

export class Admission {
  private readonly schema: ReturnType<typeof makeSchema>;
  private readonly options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.options = options;
    this.schema = makeSchema(options);
  }

  /** Throws RequestError. That the message has its columns was seen at the link. */
  check(message: AddRequest): AddRequest {
    const { promptTokenIds } = message.columns;
    const parsed = this.schema.safeParse(message);
    if (!parsed.success) {
      const issue = parsed.error.issues[0]!;
      const param = paramOf(issue.path);
      throw bad(param, `${param}: ${issue.message}`);
    }
    const request: AddRequest = { ...parsed.data, kind: 'addRequest', columns: { promptTokenIds } };
    const { sampling, text } = request;
    if (request.requestId + request.n > 2 ** 32) throw bad('n', 'n: request ids overflow');
    if (isGreedy(sampling) && request.n > 1)
      throw bad('n', 'n must be 1 when using greedy sampling');
    if (sampling.maxTokens !== null && sampling.minTokens > sampling.maxTokens)
      throw bad('min_tokens', `min_tokens must be at most max_tokens = ${sampling.maxTokens}`);
    if (sampling.logprobTokenIds !== null && sampling.logprobs === null)
      throw bad('logprob_token_ids', 'logprob_token_ids needs logprobs');
    if (!text.detokenize && text.stop.length > 0)
      throw bad('stop', 'stop strings need detokenize to be true');
    this.checkAllowed(sampling);
    this.checkPrompt(promptTokenIds, sampling.maxTokens);
    this.checkRow(request);
    return request;
  }

  /** Where they leave nothing, the first token would end the request as if the model were at fault. */
  private checkAllowed(sampling: AddRequest['sampling']): void {
    const { allowedTokenIds, badWords, minTokens } = sampling;
    if (allowedTokenIds === null) return;
    const barred = new Set(badWords.filter((word) => word.length === 1).flat());
    if (minTokens > 0)
      for (const id of stopIdsOf(sampling, this.options.eosTokenIds)) barred.add(id);
    if (allowedTokenIds.every((id) => barred.has(id)))
      throw bad(
        'allowed_token_ids',
        'allowed_token_ids: bad_words and min_tokens (which bars what ends a text) leave none of them',
      );
  }

  /** What comes in one row must fit one message: logprobs of the prompt, and all if not streamed. */
  private checkRow({ sampling, text, columns: { promptTokenIds } }: AddRequest): void {
    const numPrompt = promptTokenIds.length;
    const { promptLogprobs, logprobs, logprobTokenIds } = sampling;
    const inPrompt = promptLogprobs === null ? 0 : (promptLogprobs + 1) * (numPrompt - 1);
    const maxTokens = sampling.maxTokens ?? this.options.scheduler.maxModelLen - numPrompt;
    const alternatives = logprobTokenIds?.length ?? logprobs;
    const inOutput = alternatives === null || !text.finalOnly ? 0 : (alternatives + 1) * maxTokens;
    if (inPrompt + inOutput <= maxRowLogprobs) return;
    const [param, few] =
      inPrompt > maxRowLogprobs
        ? ['prompt_logprobs', 'fewer, or a shorter prompt']
        : ['logprobs', 'fewer, set a lower max_tokens, or stream'];
    throw bad(
      param,
      `${param}: the answer would hold up to ${inPrompt + inOutput} logprobs at once, more than ` +
        `${maxRowLogprobs}: ask for ${few}`,
    );
  }

  private checkPrompt(ids: Int32Array, maxTokens: number | null): void {
    const { maxModelLen } = this.options.scheduler;
    if (ids.length === 0) throw bad('prompt', 'the prompt has no tokens');
    checkContextLength(maxModelLen, ids.length, maxTokens);
    for (const id of ids)
      if (id < 0 || id >= this.options.vocabSize)
        throw bad('prompt', `token id ${id} is not in the vocabulary`);
  }
}

/** sampling.topP -> top_p, as HTTP calls it. */
function paramOf(path: readonly PropertyKey[]): string {
  const name = path.find((part, i) => i > 0 || (part !== 'sampling' && part !== 'text'));
  return String(name ?? path[0] ?? 'request').replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
}
