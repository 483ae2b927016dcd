// What the engine is asked for: fields, server defaults, greedy's rules, the room in the context.
import t, { type Test } from 'tap';
import type { HttpConfig } from '../../../common/config.ts';
import { defaultSamplingParams, defaultTextParams } from '../../../common/sampling-params.ts';
import { startServer } from './fakes.ts';

type Fields = Record<string, unknown>;

async function asked(t: Test, fields: Fields, config: Partial<HttpConfig> = {}, chat = false) {
  const { client, post } = await startServer(t, config);
  const path = chat ? '/v1/chat/completions' : '/v1/completions';
  const prompt = chat ? { messages: [{ role: 'user', content: 'hi' }] } : { prompt: 'ab' };
  const response = await post(path, { ...prompt, ...fields });
  t.equal(response.status, 200, await response.text());
  return client.submissions[0]!.request;
}

t.test('numbers and booleans may come as text', async (t) => {
  const fields = { max_tokens: '5', temperature: ' 0.5', top_p: '.9', top_k: '-1', n: '2.0' };
  const request = await asked(t, {
    ...fields,
    seed: '-9007199254740995',
    ignore_eos: 'True',
    skip_special_tokens: 'false',
    repetition_detection: { max_pattern_size: '20', min_count: '4' },
  });
  const repetitionDetection = { minPatternSize: 1, maxPatternSize: 20, minCount: 4 };
  t.match(request, {
    n: 2,
    sampling: {
      ...{ maxTokens: 5, temperature: 0.5, topP: 0.9, topK: 0, ignoreEos: true },
      seed: BigInt.asUintN(64, -9007199254740995n),
      repetitionDetection,
    },
    text: { skipSpecialTokens: false },
  });
});

t.test('every sampling field reaches the engine', async (t) => {
  const request = await asked(t, {
    n: 2,
    temperature: 0.7,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.05,
    presence_penalty: 1,
    frequency_penalty: -1,
    repetition_penalty: 1.1,
    seed: 42,
    stop: ['x', 'y'],
    stop_token_ids: [3, 4],
    include_stop_str_in_output: true,
    ignore_eos: true,
    bad_words: ['no'],
    max_tokens: 50,
    min_tokens: 5,
    logprobs: 3,
    prompt_logprobs: 2,
    logprob_token_ids: [7, 3, 7],
    repetition_detection: { max_pattern_size: 20, min_count: 4 },
    logit_bias: { '5': 101, '6': -3.5 },
    allowed_token_ids: [1, 2],
    skip_special_tokens: false,
    spaces_between_special_tokens: false,
    cache_salt: 'salt',
    return_token_ids: true,
    stream_interval: 4,
  });
  t.match(request, {
    n: 2,
    priority: 0,
    cacheSalt: 'salt',
    sampling: {
      temperature: 0.7,
      topP: 0.9,
      topK: 40,
      minP: 0.05,
      presencePenalty: 1,
      frequencyPenalty: -1,
      repetitionPenalty: 1.1,
      seed: 42n,
      stopTokenIds: [3, 4],
      ignoreEos: true,
      badWords: [[110, 111]],
      maxTokens: 50,
      minTokens: 5,
      logprobs: 3,
      promptLogprobs: 2,
      logprobTokenIds: [7, 3],
      repetitionDetection: { minPatternSize: 1, maxPatternSize: 20, minCount: 4 },
      logitBias: { ids: [5, 6], values: [100, -3.5] },
      allowedTokenIds: [1, 2],
    },
    text: {
      stop: ['x', 'y'],
      includeStopStrInOutput: true,
      skipSpecialTokens: false,
      spacesBetweenSpecialTokens: false,
      returnTokenIds: true,
      streamInterval: 4,
      finalOnly: true,
    },
  });
});

t.test('a request that says nothing asks for the defaults', async (t) => {
  for (const [chat, maxTokens] of [
    [false, 16],
    [true, 512 - 19],
  ] as const) {
    const { sampling, text, n } = await asked(t, {}, {}, chat);
    t.same(sampling, { ...defaultSamplingParams, maxTokens });
    t.same(
      { ...text, creditBytes: defaultTextParams.creditBytes },
      { ...defaultTextParams, finalOnly: true },
    );
    t.equal(n, 1);
  }
  const one = await asked(t, { logit_bias: { '5': 1 } });
  t.same(one.sampling.logitBias, { ids: [5], values: [1] });
  const none = await asked(t, { logit_bias: {} });
  t.equal(none.sampling.logitBias, null);
});

t.test('explicit null equals absent', async (t) => {
  const request = await asked(t, {
    temperature: null,
    stop: null,
    logit_bias: null,
    max_tokens: null,
    stream: null,
    stream_options: null,
    tools: null,
    response_format: null,
    suffix: null,
    model: null,
  });
  t.match(request, { sampling: { temperature: 1, maxTokens: 16, logitBias: null } });
});

t.test('values of unbuilt fields that ask for nothing are taken', async (t) => {
  await asked(t, {
    best_of: 1,
    suffix: '',
    use_beam_search: false,
    response_format: { type: 'text' },
    user: 'somebody',
    thinking_token_budget: -1,
  });
  await asked(t, { tools: [{}], tool_choice: 'none', parallel_tool_calls: true }, {}, true);
});

t.test('server defaults apply where the request is silent', async (t) => {
  const defaultSampling = {
    temperature: 0.6,
    topP: 0.95,
    topK: 20,
    minP: 0.01,
    repetitionPenalty: 1.2,
    maxTokens: 9,
  };
  const silent = await asked(t, {}, { defaultSampling });
  const { maxTokens, ...rest } = defaultSampling;
  t.match(silent.sampling, { ...rest, maxTokens });
  const loud = await asked(t, { temperature: 1, top_k: -1, max_tokens: 3 }, { defaultSampling });
  t.match(loud.sampling, { temperature: 1, topK: 0, topP: 0.95, maxTokens: 3 });
});

t.test('temperatures near 0', async (t) => {
  const greedy = await asked(t, { temperature: 1e-6, top_p: 0.5, top_k: 5, min_p: 0.5 });
  t.match(greedy.sampling, { temperature: 0, topP: 1, topK: 0, minP: 0 });
  const cold = await asked(t, { temperature: 0.001 });
  t.equal(cold.sampling.temperature, 0.01);
});

t.test('seeds', async (t) => {
  t.equal((await asked(t, { seed: -1 })).sampling.seed, null);
  t.equal((await asked(t, { seed: -2 })).sampling.seed, 2n ** 64n - 2n);
  t.equal((await asked(t, { seed: 0 })).sampling.seed, 0n);
  t.equal((await asked(t, {})).sampling.seed, null);
  t.equal((await asked(t, { seed: 1.5e9 })).sampling.seed, 1_500_000_000n);
});

t.test('seeds beyond 2^53 are exact', async (t) => {
  const { client, post } = await startServer(t);
  const seedOf = async (written: string): Promise<unknown> => {
    const response = await post('/v1/completions', `{"prompt":"a","seed":${written}}`);
    const body = await response.json();
    return response.status === 200 ? client.submissions.at(-1)!.request.sampling.seed : body;
  };
  t.equal(await seedOf('9007199254740993'), 9007199254740993n);
  t.equal(await seedOf('9223372036854775807'), 2n ** 63n - 1n);
  t.equal(await seedOf('-9223372036854775807'), 2n ** 63n + 1n);
  for (const beyond of ['9223372036854775808', '-9223372036854775809', '1e400'])
    t.match(await seedOf(beyond), { error: { code: 400, param: 'seed' } }, beyond);
});

t.test('readers that stand still leave others half of the credit', async (t) => {
  for (const [maxNumSeqs, creditBytes] of [
    [8, 256 * 1024],
    [1024, 32 * 1024],
    [1 << 20, 16 * 1024],
  ] as const) {
    const { client, post } = await startServer(t);
    client.info = { ...client.info, maxNumSeqs };
    await (await post('/v1/completions', { prompt: 'a', stream: true })).body?.cancel();
    t.equal(client.submissions[0]!.request.text.creditBytes, creditBytes);
  }
});

t.test('max_tokens', async (t) => {
  // The chat prompt is <s>user:hi\nassistant: = 19 tokens, the other 3.
  t.equal((await asked(t, {}, {}, true)).sampling.maxTokens, 512 - 19);
  t.equal((await asked(t, {}, { maxModelLen: 10 })).sampling.maxTokens, 7, 'the default shrinks');
  t.equal((await asked(t, { max_tokens: 509 })).sampling.maxTokens, 509, 'all that fits');
  const both = { max_tokens: 5, max_completion_tokens: 6 };
  t.equal((await asked(t, both, {}, true)).sampling.maxTokens, 6, 'the newer name wins');
  const echo = await asked(t, { max_tokens: 0, echo: true });
  t.equal(echo.sampling.maxTokens, 1, 'the engine makes one token, which is not shown');
});

t.test('special tokens in a prompt are tokens only where that is asked for', async (t) => {
  const { client, post } = await startServer(t);
  const prompt = { prompt: '<s>a', add_special_tokens: false };
  await post('/v1/completions', prompt);
  await post('/v1/completions', { ...prompt, allow_special_tokens: true });
  const [plain, special] = client.submissions.map(({ request }) => [...request.promptTokenIds]);
  t.same(plain, [60, 115, 62, 97]);
  t.same(special, [256, 97]);
  const tokenized = await post('/tokenize', { ...prompt, allow_special_tokens: true });
  t.match(await tokenized.json(), { tokens: [256, 97] });
});

t.test('bad words are banned at the start and after a space', async (t) => {
  // A space is one more byte here: what comes after it is the bare word.
  t.same((await asked(t, { bad_words: [' ab', 'c'] })).sampling.badWords, [[97, 98], [99]]);
});

t.test('the whole vocabulary, where the server allows it', async (t) => {
  const whole = { maxLogprobs: 258 };
  const prompt = await asked(t, { prompt_logprobs: -1 }, whole);
  t.equal(prompt.sampling.promptLogprobs, 258);
  const chat = await asked(t, { logprobs: true, top_logprobs: -1 }, whole, true);
  t.equal(chat.sampling.logprobs, 258);
});

t.test('what asks for nothing is nothing', async (t) => {
  const off = { max_pattern_size: 0, min_count: 0 };
  const none = await asked(t, { logprob_token_ids: [], repetition_detection: off });
  t.match(none.sampling, { logprobTokenIds: null, repetitionDetection: null, logprobs: null });
  const smallest = { max_pattern_size: 5, min_pattern_size: 2, min_count: 2, strange: 1 };
  const some = await asked(t, { repetition_detection: smallest });
  const wanted = { minPatternSize: 2, maxPatternSize: 5, minCount: 2 };
  t.same(some.sampling.repetitionDetection, wanted);
});

t.test('priority', async (t) => {
  t.equal((await asked(t, { priority: -3 }, { priorityScheduling: true })).priority, -3);
  t.equal((await asked(t, { priority: 0 })).priority, 0);
});

t.test('prompts', async (t) => {
  const { client, post } = await startServer(t);
  const ids = async (prompt: unknown, fields: Fields = {}) => {
    client.submissions.length = 0;
    const response = await post('/v1/completions', { prompt, ...fields });
    t.equal(response.status, 200);
    await response.text();
    return client.submissions.map(({ request }) => Array.from(request.promptTokenIds));
  };
  t.same(await ids('ab'), [[256, 97, 98]]);
  t.same(await ids('ab', { add_special_tokens: false }), [[97, 98]]);
  t.same(await ids(['a', 'b']), [
    [256, 97],
    [256, 98],
  ]);
  t.same(await ids([1, 2]), [[1, 2]]);
  t.same(await ids([[1], [2, 3]]), [[1], [2, 3]]);
  t.same(await ids(''), [[256]]);
});
