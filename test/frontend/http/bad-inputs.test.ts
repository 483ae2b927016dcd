// The table of bad inputs: each has its status, its error body and its param, and the next request
// succeeds on the same server.
import t, { type Test } from 'tap';
import { startServer, type TestServer } from './fakes.ts';

type Fields = Record<string, unknown>;
/** [what, fields of the body, param, status = 400] */
type Case = readonly [string, Fields, string | null, number?];

const repetition = (change: Record<string, unknown>) => ({
  repetition_detection: { max_pattern_size: 3, min_count: 2, ...change },
});
const long = (length: number) => 'a'.repeat(length);
const list = (length: number, item: unknown = 1) => Array.from({ length }, () => item);
const biases = Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [String(i), 1]));

/** Fields that both generate routes check alike. */
const common: readonly Case[] = [
  ['model unknown', { model: 'other' }, 'model', 404],
  ['model empty', { model: '' }, 'model'],
  ['model not a string', { model: 7 }, 'model'],
  ['n 0', { n: 0 }, 'n'],
  ['n above 128', { n: 129 }, 'n'],
  ['n huge', { n: 1e300 }, 'n'],
  ['n a fraction', { n: 1.5 }, 'n'],
  ['n a word', { n: 'two' }, 'n'],
  ['n an empty text', { n: '' }, 'n'],
  ['n a list', { n: [2] }, 'n'],
  ['n with greedy', { n: 2, temperature: 0 }, 'n'],
  ['temperature negative', { temperature: -0.1 }, 'temperature'],
  ['temperature above 2', { temperature: 2.1 }, 'temperature'],
  ['temperature a string', { temperature: 'hot' }, 'temperature'],
  ['top_p 0', { top_p: 0 }, 'top_p'],
  ['top_p above 1', { top_p: 1.01 }, 'top_p'],
  ['top_k below -1', { top_k: -2 }, 'top_k'],
  ['top_k a fraction', { top_k: 0.5 }, 'top_k'],
  ['min_p negative', { min_p: -0.1 }, 'min_p'],
  ['min_p above 1', { min_p: 1.1 }, 'min_p'],
  ['presence_penalty', { presence_penalty: 2.5 }, 'presence_penalty'],
  ['frequency_penalty', { frequency_penalty: -2.5 }, 'frequency_penalty'],
  ['repetition_penalty 0', { repetition_penalty: 0 }, 'repetition_penalty'],
  ['repetition_penalty huge', { repetition_penalty: 1e31 }, 'repetition_penalty'],
  ['seed a fraction', { seed: 0.5 }, 'seed'],
  ['seed a word', { seed: 'five' }, 'seed'],
  ['seed a text beyond 64 bits', { seed: '9223372036854775808' }, 'seed'],
  ['seed beyond 64 bits', { seed: 2 ** 70 }, 'seed'],
  ['seed 2^63', { seed: 2 ** 63 }, 'seed'],
  ['stop empty', { stop: '' }, 'stop'],
  ['stop with an empty string', { stop: ['a', ''] }, 'stop'],
  ['stop 17 strings', { stop: list(17, 'a') }, 'stop'],
  ['stop of 257 bytes', { stop: long(257) }, 'stop'],
  ['stop of 257 bytes in 129 characters', { stop: `${'é'.repeat(128)}a` }, 'stop'],
  ['stop a number', { stop: 5 }, 'stop'],
  ['stop_token_ids not a list', { stop_token_ids: 5 }, 'stop_token_ids'],
  ['stop_token_ids negative', { stop_token_ids: [-1] }, 'stop_token_ids'],
  ['stop_token_ids out of vocabulary', { stop_token_ids: [258] }, 'stop_token_ids'],
  ['request_id', { request_id: 'a\r\nb' }, 'request_id'],
  ['request_id that is no text', { request_id: 5 }, 'request_id'],
  ['bad_words with an empty word', { bad_words: [''] }, 'bad_words'],
  ['bad_words of spaces only', { bad_words: ['  '] }, 'bad_words'],
  ['bad_words of 65 tokens', { bad_words: [long(65)] }, 'bad_words'],
  ['bad_words too many', { bad_words: list(129, 'a') }, 'bad_words'],
  ['max_tokens negative', { max_tokens: -1 }, 'max_tokens'],
  ['max_tokens a fraction', { max_tokens: 1.5 }, 'max_tokens'],
  ['max_tokens 0', { max_tokens: 0 }, 'max_tokens'],
  ['max_tokens beyond the context', { max_tokens: 512 }, 'max_tokens'],
  ['min_tokens negative', { min_tokens: -1 }, 'min_tokens'],
  ['min_tokens above max_tokens', { min_tokens: 6, max_tokens: 5 }, 'min_tokens'],
  ['prompt_logprobs -2', { prompt_logprobs: -2 }, 'prompt_logprobs'],
  ['prompt_logprobs -1', { prompt_logprobs: -1 }, 'prompt_logprobs'],
  ['prompt_logprobs above the cap', { prompt_logprobs: 21 }, 'prompt_logprobs'],
  ['prompt_logprobs with stream', { prompt_logprobs: 1, stream: true }, 'prompt_logprobs'],
  ['logprob_token_ids without logprobs', { logprob_token_ids: [1] }, 'logprob_token_ids'],
  ['repetition_detection a list', { repetition_detection: [] }, 'repetition_detection'],
  ['repetition_detection size -1', repetition({ min_pattern_size: -1 }), 'repetition_detection'],
  [
    'repetition_detection size 1025',
    repetition({ max_pattern_size: 1025 }),
    'repetition_detection',
  ],
  ['repetition_detection size 1.5', repetition({ max_pattern_size: 1.5 }), 'repetition_detection'],
  [
    'repetition_detection min above max',
    repetition({ min_pattern_size: 9 }),
    'repetition_detection',
  ],
  ['repetition_detection min_count 1', repetition({ min_count: 1 }), 'repetition_detection'],
  [
    'repetition_detection without min_count',
    { repetition_detection: { max_pattern_size: 3 } },
    'repetition_detection',
  ],
  [
    'repetition_detection min size alone',
    { repetition_detection: { min_pattern_size: 1 } },
    'repetition_detection',
  ],
  ['logit_bias a list', { logit_bias: [1] }, 'logit_bias'],
  ['logit_bias of a word', { logit_bias: { word: 1 } }, 'logit_bias'],
  ['logit_bias of a string', { logit_bias: { '1': '1' } }, 'logit_bias'],
  ['logit_bias out of vocabulary', { logit_bias: { '258': 1 } }, 'logit_bias'],
  ['logit_bias too large', { logit_bias: biases }, 'logit_bias'],
  ['allowed_token_ids empty', { allowed_token_ids: [] }, 'allowed_token_ids'],
  ['allowed_token_ids out of vocabulary', { allowed_token_ids: [1, 258] }, 'allowed_token_ids'],
  ['skip_special_tokens a number', { skip_special_tokens: 1 }, 'skip_special_tokens'],
  ['ignore_eos a string', { ignore_eos: 'yes' }, 'ignore_eos'],
  ['stream a word', { stream: 'yes' }, 'stream'],
  ['stream_options without stream', { stream_options: { include_usage: true } }, 'stream_options'],
  ['stream_options a list', { stream: true, stream_options: [] }, 'stream_options'],
  ['stream_interval 0', { stream_interval: 0 }, 'stream_interval'],
  ['priority under fcfs', { priority: 1 }, 'priority'],
  ['cache_salt of 257 bytes', { cache_salt: long(257) }, 'cache_salt'],
  ['cache_salt empty', { cache_salt: '' }, 'cache_salt'],
  // Known, but not built.
  ['response_format', { response_format: { type: 'json_object' } }, 'response_format'],
  ['structured_outputs', { structured_outputs: { json: {} } }, 'structured_outputs'],
  ['guided_json', { guided_json: {} }, 'guided_json'],
  ['guided_regex', { guided_regex: 'a' }, 'guided_regex'],
  ['use_beam_search', { use_beam_search: true }, 'use_beam_search'],
  ['length_penalty', { length_penalty: 2 }, 'length_penalty'],
  ['best_of', { best_of: 2 }, 'best_of'],
  ['truncation_side', { truncation_side: 'left' }, 'truncation_side'],
  ['truncate_prompt_tokens', { truncate_prompt_tokens: 3 }, 'truncate_prompt_tokens'],
  ['prompt_embeds', { prompt_embeds: 'AAAA' }, 'prompt_embeds'],
  ['thinking_token_budget', { thinking_token_budget: 5 }, 'thinking_token_budget'],
  ['kv_transfer_params', { kv_transfer_params: { a: 1 } }, 'kv_transfer_params'],
];

/** `logprobs` is the route's way to ask for them. */
const named = (logprobs: unknown): Case[] => [
  ['logprob_token_ids a number', { logprobs, logprob_token_ids: 1 }, 'logprob_token_ids'],
  ['logprob_token_ids negative', { logprobs, logprob_token_ids: [-1] }, 'logprob_token_ids'],
  ['logprob_token_ids a word', { logprobs, logprob_token_ids: ['a'] }, 'logprob_token_ids'],
  [
    'logprob_token_ids out of vocabulary',
    { logprobs, logprob_token_ids: [1, 258] },
    'logprob_token_ids',
  ],
  ['logprob_token_ids 129', { logprobs, logprob_token_ids: list(129) }, 'logprob_token_ids'],
];

const completion: readonly Case[] = [
  ...named(0),
  ['prompt missing', { prompt: undefined }, 'prompt'],
  ['prompt null', { prompt: null }, 'prompt'],
  ['prompt an object', { prompt: {} }, 'prompt'],
  ['prompt an empty list', { prompt: [] }, 'prompt'],
  ['prompt a list of empty lists', { prompt: [[]] }, 'prompt'],
  ['prompt mixed', { prompt: ['a', [1]] }, 'prompt'],
  ['prompt of fractions', { prompt: [1.5] }, 'prompt'],
  ['prompt of negative ids', { prompt: [-1] }, 'prompt'],
  ['prompt out of vocabulary', { prompt: [1, 258] }, 'prompt'],
  ['prompt without tokens', { prompt: '', add_special_tokens: false }, 'prompt'],
  ['prompt of 1025 texts', { prompt: list(1025, 'a') }, 'prompt'],
  ['prompts times n', { prompt: list(100, 'a'), n: 11 }, 'n'],
  ['prompt as long as the context', { prompt: long(512) }, 'input_tokens'],
  ['second prompt too long', { prompt: ['a', long(600)] }, 'input_tokens'],
  ['logprobs negative', { logprobs: -1 }, 'logprobs'],
  ['logprobs above the cap', { logprobs: 21 }, 'logprobs'],
  ['logprobs a boolean', { logprobs: true }, 'logprobs'],
  [
    'logprob_token_ids of an echo alone',
    { logprobs: 1, logprob_token_ids: [1], echo: true, max_tokens: 0 },
    'logprob_token_ids',
  ],
  ['suffix', { suffix: 'end' }, 'suffix'],
  ['return_prompt_text', { return_prompt_text: true }, 'return_prompt_text'],
];

const say = (content: unknown, role: unknown = 'user') => ({ messages: [{ role, content }] });
const chat: readonly Case[] = [
  ...named(true),
  ['logprob_token_ids without', { logprobs: false, logprob_token_ids: [1] }, 'logprob_token_ids'],
  ['messages missing', { messages: undefined }, 'messages'],
  ['messages empty', { messages: [] }, 'messages'],
  ['messages a string', { messages: 'hi' }, 'messages'],
  ['a message that is a string', { messages: ['hi'] }, 'messages.0'],
  ['role missing', { messages: [{ content: 'a' }] }, 'messages.0.role'],
  ['role unknown', say('a', 'wizard'), 'messages.0.role'],
  ['role tool', say('a', 'tool'), 'messages.0.role'],
  ['name a number', { messages: [{ role: 'user', content: 'a', name: 5 }] }, 'messages.0.name'],
  ['content missing', { messages: [{ role: 'user' }] }, 'messages.0.content'],
  ['content a number', say(5), 'messages.0.content'],
  ['content part without type', say(['a', { text: 'a' }]), 'messages.0.content.1'],
  ['content part a number', say([5]), 'messages.0.content.0'],
  ['content part image_url', say([{ type: 'image_url' }]), 'messages.0.content.0.type'],
  ['content part without text', say([{ type: 'text' }]), 'messages.0.content.0.text'],
  [
    'tool_calls in the history',
    { messages: [{ role: 'assistant', tool_calls: [{}] }] },
    'messages.0.tool_calls',
  ],
  ['messages too long', say(long(600)), 'input_tokens'],
  ['max_completion_tokens 0', { max_completion_tokens: 0 }, 'max_completion_tokens'],
  ['max_completion_tokens too many', { max_completion_tokens: 512 }, 'max_completion_tokens'],
  ['logprobs a number', { logprobs: 3 }, 'logprobs'],
  ['top_logprobs without logprobs', { top_logprobs: 2 }, 'top_logprobs'],
  ['top_logprobs above the cap', { logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
  ['top_logprobs -1', { logprobs: true, top_logprobs: -1 }, 'top_logprobs'],
  [
    'continue_final_message with add_generation_prompt',
    { continue_final_message: true, add_generation_prompt: true },
    'continue_final_message',
  ],
  ['tools', { tools: [{}] }, 'tools'],
  ['tools with tool_choice auto', { tools: [{}], tool_choice: 'auto' }, 'tool_choice'],
  ['functions', { functions: [] }, 'functions'],
  ['reasoning_effort unknown', { reasoning_effort: 'hard' }, 'reasoning_effort'],
  ['reasoning_effort a number', { reasoning_effort: 3 }, 'reasoning_effort'],
  ['documents an object', { documents: {} }, 'documents'],
  ['documents of texts', { documents: ['a'] }, 'documents'],
  ['documents of numbers', { documents: [{ title: 3 }] }, 'documents'],
  ['return_prompt_text a string', { return_prompt_text: 'yes' }, 'return_prompt_text'],
  ['include_reasoning', { include_reasoning: false }, 'include_reasoning'],
  ['chat_template', { chat_template: '{{ 1 }}' }, 'chat_template'],
  ['chat_template_kwargs a list', { chat_template_kwargs: [1] }, 'chat_template_kwargs'],
  ['add_special_tokens a number', { add_special_tokens: 1 }, 'add_special_tokens'],
];

const tokenize: readonly Case[] = [
  ['nothing', { prompt: undefined }, 'prompt'],
  ['both', { messages: [{ role: 'user', content: 'a' }] }, 'prompt'],
  ['prompt a list', { prompt: ['a'] }, 'prompt'],
  ['return_token_strs', { prompt: 'a', return_token_strs: 1 }, 'return_token_strs'],
  ['model unknown', { model: 'other' }, 'model', 404],
];

const detokenize: readonly Case[] = [
  ['tokens missing', { tokens: undefined }, 'tokens'],
  ['tokens a string', { tokens: 'a' }, 'tokens'],
  ['tokens out of vocabulary', { tokens: [258] }, 'tokens'],
];

const routes: readonly (readonly [string, Fields, readonly Case[]])[] = [
  ['/v1/completions', { prompt: 'a' }, [...common, ...completion]],
  ['/v1/chat/completions', { messages: [{ role: 'user', content: 'a' }] }, [...common, ...chat]],
  ['/tokenize', { prompt: 'a' }, tokenize],
  ['/detokenize', { tokens: [97] }, detokenize],
];

for (const [path, good, cases] of routes) {
  t.test(path, async (t) => {
    const server = await startServer(t);
    for (const [what, fields, param, status = 400] of cases) {
      const response = await server.post(path, { ...good, ...fields });
      const body: unknown = await response.json();
      t.equal(response.status, status, `${what}: status`);
      t.match(body, { error: { message: /./, type: /Error$/, param, code: status } }, what);
      await nextSucceeds(t, server, path, good, what);
    }
    t.equal(server.server.numOpen, 0, 'nothing is left open');
  });
}

t.test('bodies that are no request', async (t) => {
  const server = await startServer(t);
  const path = '/v1/completions';
  const deep = `{"prompt":"a","x":${'['.repeat(65)}${']'.repeat(65)}}`;
  const cases: readonly (readonly [string, string, Record<string, string>, number])[] = [
    ['no JSON', '{"prompt": ', {}, 400],
    ['empty', '', {}, 400],
    ['a list', '[]', {}, 400],
    ['null', 'null', {}, 400],
    ['NaN', '{"prompt":"a","temperature":NaN}', {}, 400],
    ['a number beyond a double', '{"prompt":"a","temperature":1e400}', {}, 400],
    ['too deep', deep, {}, 400],
    ['too large', JSON.stringify({ prompt: long(4 * 1024 * 1024) }), {}, 413],
    ['text', 'prompt=a', { 'content-type': 'text/plain' }, 415],
    ['a form', 'prompt=a', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    ['compressed', '{"prompt":"a"}', { 'content-encoding': 'gzip' }, 415],
  ];
  for (const [what, body, headers, status] of cases) {
    const response = await server.post(path, body, headers);
    t.equal(response.status, status, `${what}: status`);
    t.match(await response.json(), { error: { message: /./, code: status } }, what);
    await nextSucceeds(t, server, path, { prompt: 'a' }, what);
  }
  const quoted = await server.post(path, "{'prompt': 'a'}");
  t.match(await quoted.json(), {
    error: { message: /^the request body is not valid JSON \(.*position 1/ },
  });
  const bytes = await fetch(server.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: Buffer.concat([Buffer.from('{"prompt":"'), Buffer.from([0xff]), Buffer.from('"}')]),
  });
  t.equal(bytes.status, 400, 'no UTF-8: status');
});

t.test('keys that would reach a prototype are keys like any other', async (t) => {
  const server = await startServer(t);
  const body =
    '{"prompt":"a","__proto__":{"n":500,"polluted":1},"constructor":{"prototype":{"polluted":1}}}';
  const response = await server.post('/v1/completions', body);
  t.equal(response.status, 200);
  t.equal(response.headers.get('x-ignored-fields'), '__proto__, constructor');
  t.equal(({} as Record<string, unknown>).polluted, undefined);
  const inside = '{"messages":[{"role":"user","content":"a","__proto__":{"polluted":1}}]}';
  t.equal((await server.post('/v1/chat/completions', inside)).status, 200);
  t.equal(({} as Record<string, unknown>).polluted, undefined);
  const twice = await server.post('/v1/completions', '{"prompt":"a","n":500,"n":1}');
  t.equal(twice.status, 200, 'the last of duplicate keys counts');
});

t.test('the one value of a field that is not built is named', async (t) => {
  const server = await startServer(t);
  const refused = async (fields: Fields) => {
    const response = await server.post('/v1/chat/completions', { ...say('a'), ...fields });
    const { error } = (await response.json()) as { error: { message: string } };
    return error.message.replace(' is not supported by this server', '');
  };
  t.equal(await refused(say([{ type: 'image_url' }])), 'messages.0.content.0.type image_url');
  t.equal(await refused(say([{ type: 'a'.repeat(65) }])), 'messages.0.content.0.type');
  t.equal(await refused(say('a', 'tool')), 'messages.0.role tool');
  const json = { response_format: { type: 'json_object' } };
  t.equal(await refused(json), 'response_format json_object');
  t.equal(await refused({ best_of: 2 }), 'best_of');
});

t.test('what does not fit the context is told with all that it counts', async (t) => {
  const server = await startServer(t);
  const message =
    "This model's maximum context length is 512 tokens. However, you requested 13 output tokens and " +
    'your prompt contains 500 input tokens, for a total of 513 tokens. Please reduce the length of ' +
    'the input prompt or the number of requested output tokens.';
  const fields = { prompt: Array<number>(500).fill(97), max_tokens: 13 };
  const response = await server.post('/v1/completions', fields);
  t.match(await response.json(), { error: { message, param: 'max_tokens' } });
});

t.test('unknown routes and methods', async (t) => {
  const { url } = await startServer(t);
  const missing = await fetch(`${url}/v1/embeddings?a=b`, { method: 'POST' });
  t.equal(missing.status, 404);
  const message = 'there is no route POST /v1/embeddings';
  t.same(await missing.json(), {
    error: { message, type: 'NotFoundError', param: null, code: 404 },
  });
  const method = await fetch(`${url}/v1/completions`);
  t.equal(method.status, 405);
  t.equal(method.headers.get('allow'), 'POST, OPTIONS');
  t.match(await method.json(), { error: { code: 405 } });
  t.equal((await fetch(`${url}/v1/models`, { method: 'DELETE' })).status, 405);
  t.equal((await fetch(`${url}/health`, { method: 'HEAD' })).status, 200);
});

async function nextSucceeds(
  t: Test,
  server: TestServer,
  path: string,
  good: Fields,
  after: string,
): Promise<void> {
  const next = await server.post(path, good);
  t.equal(next.status, 200, `${after}: the next request succeeds`);
  await next.text();
}
