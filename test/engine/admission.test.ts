import t from 'tap';
import { RequestError } from '../../common/errors.ts';
import {
  defaultSamplingParams,
  defaultTextParams,
  type RepetitionDetection,
  type SamplingParams,
  type TextParams,
} from '../../common/sampling-params.ts';
import type { AddRequest } from '../../common/wire/messages.ts';
import { Admission } from '../../engine/admission.ts';
import { defaultRequestLimits as limits, maxRowLogprobs } from '../../common/limits.ts';
import { defaultScheduler } from '../../scripts/virtual-server.ts';

const vocabSize = 100;
const admission = new Admission({
  scheduler: { ...defaultScheduler, maxModelLen: 64 },
  vocabSize,
  eosTokenIds: [2, 3],
  maxLogprobs: 5,
  limits,
});

const makeMessage = (
  sampling: Partial<SamplingParams> = {},
  text: Partial<TextParams> = {},
  rest: Partial<AddRequest> = {},
): AddRequest => ({
  kind: 'addRequest',
  requestId: 1,
  n: 1,
  sampling: { ...defaultSamplingParams, ...sampling },
  text: { ...defaultTextParams, ...text },
  priority: 0,
  cacheSalt: null,
  columns: { promptTokenIds: Int32Array.of(1, 2, 3) },
  ...rest,
});

const many = (length: number, value: unknown = 1) => Array.from({ length }, () => value) as never;

const repetition = (change: Partial<RepetitionDetection> = {}) => ({
  ...{ minPatternSize: 1, maxPatternSize: 3, minCount: 2 },
  ...change,
});

// Each field at its borders: what is taken, and what is refused under which name.
const sampling: readonly [keyof SamplingParams, string, unknown[], unknown[]][] = [
  ['temperature', 'temperature', [0, 2], [-0.1, 2.1, NaN, Infinity, '1', null]],
  ['topP', 'top_p', [0.01, 1], [0, 1.01, NaN]],
  ['topK', 'top_k', [-1, 0, 1000], [-2, 1.5, 2 ** 32]],
  ['minP', 'min_p', [0, 1], [-0.1, 1.1]],
  ['presencePenalty', 'presence_penalty', [-2, 2], [-2.1, 2.1]],
  ['frequencyPenalty', 'frequency_penalty', [-2, 2], [-2.1, 2.1]],
  ['repetitionPenalty', 'repetition_penalty', [0.1, 20], [0, -1, 1e31, Infinity]],
  ['seed', 'seed', [0, null, 2n ** 64n - 1n], [-1, 0.5, 2n ** 64n, 'x']],
  ['maxTokens', 'max_tokens', [1, 61, null], [0, -1, 1.5, 62]],
  ['minTokens', 'min_tokens', [0, 16], [-1, 17, 0.5]],
  [
    'stopTokenIds',
    'stop_token_ids',
    [[], [99]],
    [[100], [-1], [1.5], many(limits.stopTokenIds + 1)],
  ],
  ['ignoreEos', 'ignore_eos', [true], ['yes', null]],
  ['logprobs', 'logprobs', [null, 0, 5], [-1, 6, 0.5]],
  ['promptLogprobs', 'prompt_logprobs', [null, 0, 5], [-1, 6]],
  [
    'repetitionDetection',
    'repetition_detection',
    [null, repetition(), repetition({ maxPatternSize: 1024, minPatternSize: 1024 })],
    [
      repetition({ minCount: 1 }),
      repetition({ minPatternSize: 0 }),
      repetition({ minPatternSize: 4 }),
      repetition({ maxPatternSize: 1025 }),
      { maxPatternSize: 3 },
      true,
    ],
  ],
  [
    'logitBias',
    'logit_bias',
    [null, { ids: [1], values: [-100] }],
    [
      { ids: [100], values: [1] },
      { ids: [1], values: [101] },
      { ids: [1], values: [NaN] },
      { ids: [1, 2], values: [1] },
      { ids: many(limits.logitBias + 1), values: many(limits.logitBias + 1) },
    ],
  ],
  ['allowedTokenIds', 'allowed_token_ids', [null, [0, 99]], [[], [100], [-1]]],
  ['badWords', 'bad_words', [[], [[1, 2]]], [[[]], [[100]], many(2 * limits.badWords + 1, [1])]],
];

const text: readonly [keyof TextParams, string, unknown[], unknown[]][] = [
  ['stop', 'stop', [['a'], many(16, 'b')], [[''], many(17, 'b'), ['x'.repeat(257)], [3]]],
  ['streamInterval', 'stream_interval', [1, 100], [0, 1.5]],
  ['creditBytes', 'credit_bytes', [0], [-1]],
  ['detokenize', 'detokenize', [false], [1]],
];

function refusal(message: AddRequest): RequestError | null {
  try {
    admission.check(message);
    return null;
  } catch (error) {
    if (error instanceof RequestError) return error;
    throw error;
  }
}

t.test('Admission takes and refuses every parameter at its borders, by its HTTP name', (t) => {
  const check = (param: string, good: AddRequest[], bad: AddRequest[]) => {
    for (const message of good) t.equal(refusal(message)?.message, undefined, `${param} is taken`);
    for (const message of bad) {
      const error = refusal(message);
      t.equal(error?.param, param);
      t.match(error?.code, /bad_request|context_length_exceeded/);
    }
  };
  for (const [field, param, good, bad] of sampling) {
    const make = (value: unknown) => makeMessage({ [field]: value });
    check(param, good.map(make), bad.map(make));
  }
  for (const [field, param, good, bad] of text) {
    const make = (value: unknown) => makeMessage({}, { [field]: value });
    check(param, good.map(make), bad.map(make));
  }
  t.end();
});

t.test('Admission checks the request as a whole', (t) => {
  const of = (rest: Partial<AddRequest>, params: Partial<SamplingParams> = {}) =>
    refusal(makeMessage(params, {}, rest));
  t.match(of({ n: 0 }), { param: 'n' });
  t.match(of({ n: 129 }), { param: 'n' });
  t.match(of({ n: 2 }, { temperature: 0 }), { param: 'n', message: /greedy/ });
  t.equal(of({}, { minTokens: 5, maxTokens: null }), null);
  t.match(of({ priority: 1 }), { param: 'priority' });
  t.match(of({ cacheSalt: '' }), { param: 'cache_salt' });
  const prompt = (...ids: number[]) => ({ columns: { promptTokenIds: Int32Array.from(ids) } });
  t.match(of(prompt()), { param: 'prompt' });
  t.match(of(prompt(1, 100)), { param: 'prompt', message: /100 is not in the vocabulary/ });
  t.match(of(prompt(-1)), { param: 'prompt' });
  t.match(of(prompt(...(many(64) as number[])), { maxTokens: null }), {
    code: 'context_length_exceeded',
    message: /you requested 1 output tokens and your prompt contains 64 input tokens/,
    param: 'input_tokens',
  });
  t.match(of(prompt(...(many(60) as number[])), { maxTokens: 5 }), {
    message: /maximum context length is 64 tokens\..* a total of 65 tokens\./,
    param: 'max_tokens',
  });
  t.equal(of(prompt(...(many(63) as number[])), { maxTokens: null }), null);
  t.match(refusal(makeMessage({}, { detokenize: false, stop: ['a'] })), { param: 'stop' });
  t.match(refusal(makeMessage({ unheard: 1 } as never)), { message: /unheard/ });
  t.end();
});

t.test('ids whose logprobs are named need logprobs, and are in the vocabulary', (t) => {
  const named = (logprobTokenIds: unknown, logprobs: number | null = 0) =>
    makeMessage({ logprobTokenIds, logprobs } as Partial<SamplingParams>);
  for (const ids of [null, [0], [99, 1, 1], many(128)]) t.ok(admission.check(named(ids)));
  for (const ids of [[], [100], [-1], [0.5], many(129), [null], 7])
    t.throws(() => admission.check(named(ids)), {
      code: 'bad_request',
      param: 'logprob_token_ids',
    });
  t.throws(() => admission.check(named([1], null)), {
    code: 'bad_request',
    param: 'logprob_token_ids',
  });
  t.end();
});

t.test('allowed ids that other parameters take away are refused, not sampled from', (t) => {
  const error = (sampling: Partial<SamplingParams>) => refusal(makeMessage(sampling));
  const none = { code: 'bad_request', param: 'allowed_token_ids' };
  t.match(error({ allowedTokenIds: [2, 3], minTokens: 1 }), none);
  t.equal(error({ allowedTokenIds: [2, 3], minTokens: 0 }), null);
  t.equal(error({ allowedTokenIds: [2, 3], minTokens: 1, ignoreEos: true }), null);
  t.equal(error({ allowedTokenIds: [2, 4], minTokens: 1 }), null);
  t.match(error({ allowedTokenIds: [2, 4], minTokens: 1, stopTokenIds: [4] }), none);
  t.match(error({ allowedTokenIds: [7, 8], badWords: [[7], [8]] }), none);
  t.equal(error({ allowedTokenIds: [7, 8], badWords: [[7], [8, 8]] }), null);
  t.end();
});

t.test('logprobs that would not fit one message are refused before anything is made', (t) => {
  const vocabSize = 100_000;
  const scheduler = { ...defaultScheduler, maxModelLen: 4096 };
  const large = new Admission({
    ...{ scheduler, vocabSize, eosTokenIds: [], maxLogprobs: vocabSize, limits },
  });
  const promptTokenIds = new Int32Array(1001);
  const check = (sampling: Partial<SamplingParams>, finalOnly: boolean) =>
    large.check(makeMessage(sampling, { finalOnly }, { columns: { promptTokenIds } }));
  const most = maxRowLogprobs / 1000 - 1;
  t.ok(check({ promptLogprobs: Math.floor(most) }, false));
  t.throws(() => check({ promptLogprobs: Math.ceil(most) }, false), {
    code: 'bad_request',
    param: 'prompt_logprobs',
  });
  t.ok(check({ logprobs: 100, maxTokens: 3000 }, true));
  t.throws(() => check({ logprobs: 2000, maxTokens: 3000 }, true), {
    code: 'bad_request',
    param: 'logprobs',
  });
  t.throws(() => check({ logprobs: 2000, maxTokens: null }, true), {
    code: 'bad_request',
    param: 'logprobs',
  });
  t.ok(check({ logprobs: 2000, maxTokens: null }, false), 'streamed, a row has a few tokens');
  t.ok(check({ logprobs: 2000, maxTokens: 3000, logprobTokenIds: [1, 2] }, true));
  t.end();
});
