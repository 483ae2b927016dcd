// /v1/completions: whole answers and streams, their shapes and their counts.
import t from 'tap';
import { RequestError } from '../../../common/errors.ts';
import { readEvents, startServer } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const path = '/v1/completions';

interface Choice {
  readonly index: number;
  readonly text: string;
  readonly finish_reason: string | null;
}
interface Chunk {
  readonly choices: readonly Choice[];
}

t.test('a completion', async (t) => {
  const { client, post } = await startServer(t);
  const response = await post(path, { prompt: 'ab' });
  t.equal(response.status, 200);
  const body: unknown = await response.json();
  t.match(body, {
    id: /^cmpl-[0-9a-f]{32}$/,
    object: 'text_completion',
    created: Number,
    model: 'test-model',
  });
  t.same((body as Chunk).choices, [
    { index: 0, text: 'Hello', logprobs: null, finish_reason: 'stop', stop_reason: null },
  ]);
  t.same((body as { usage: unknown }).usage, {
    prompt_tokens: 3,
    completion_tokens: 5,
    total_tokens: 8,
  });
  t.equal(client.submissions[0]!.request.text.finalOnly, true);
});

t.test('a stream', async (t) => {
  const { client, post } = await startServer(t);
  const response = await post(path, {
    prompt: 'ab',
    stream: true,
    stream_options: { include_usage: true },
  });
  t.equal(response.headers.get('content-type'), 'text/event-stream; charset=utf-8');
  t.equal(response.headers.get('cache-control'), 'no-cache');
  const events = await readEvents(response);
  t.match(events[0], { id: /^cmpl-/, object: 'text_completion', created: Number });
  const [first, second, last, done, ...rest] = events as Chunk[];
  t.same(first!.choices, [
    { index: 0, text: 'Hel', logprobs: null, finish_reason: null, stop_reason: null },
  ]);
  t.same(second!.choices, [
    { index: 0, text: 'lo', logprobs: null, finish_reason: 'stop', stop_reason: null },
  ]);
  t.match(last, {
    choices: [],
    usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 },
  });
  t.equal(done, '[DONE]');
  t.equal(rest.length, 0);
  t.notOk('usage' in first!, 'usage is in its own chunk only');
  t.same(client.submissions[0]!.consumed, [
    { index: 0, bytes: 3 },
    { index: 0, bytes: 2 },
  ]);
});

t.test('a stream without stream_options has no usage', async (t) => {
  const { post } = await startServer(t);
  const events = await readEvents(await post(path, { prompt: 'ab', stream: true }));
  t.equal(events.length, 3);
  t.notOk(events.some((event) => typeof event === 'object' && 'usage' in event!));
});

t.test('continuous_usage_stats puts usage in each chunk', async (t) => {
  const { post } = await startServer(t);
  const stream_options = { include_usage: true, continuous_usage_stats: true };
  const events = await readEvents(await post(path, { prompt: 'ab', stream: true, stream_options }));
  t.match(events, [
    { usage: { prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 } },
    { usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 } },
    { choices: [], usage: { completion_tokens: 5 } },
    '[DONE]',
  ]);
});

t.test('several prompts with n choices each', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) => {
    const name = String.fromCharCode(submission.request.promptTokenIds.at(-1)!);
    // The second choice ends first.
    submission.say(`${name}1`, { finishReason: 'length' }, 1);
    submission.say(`${name}0`, { finishReason: 'stop', stopReason: 'x' }, 0);
  };
  const body = { prompt: ['aa', 'b'], n: 2, seed: 1 };
  const whole = (await (await post(path, body)).json()) as Chunk & { usage: unknown };
  t.match(whole.choices, [
    { index: 0, text: 'a0', finish_reason: 'stop', stop_reason: 'x' },
    { index: 1, text: 'a1', finish_reason: 'length', stop_reason: null },
    { index: 2, text: 'b0' },
    { index: 3, text: 'b1' },
  ]);
  // Each prompt counts once: <s>aa and <s>b.
  t.same(whole.usage, { prompt_tokens: 5, completion_tokens: 8, total_tokens: 13 });
  const stream_options = { include_usage: true };
  const events = await readEvents(await post(path, { ...body, stream: true, stream_options }));
  const texts: Record<number, string> = {};
  for (const event of events as Chunk[]) {
    for (const { index, text } of event === ('[DONE]' as never) ? [] : event.choices) {
      texts[index] = (texts[index] ?? '') + text;
    }
  }
  t.same(texts, { 0: 'a0', 1: 'a1', 2: 'b0', 3: 'b1' });
  t.match(events.at(-2), { usage: { prompt_tokens: 5, completion_tokens: 8, total_tokens: 13 } });
});

t.test('a list of prompts that no queue could hold is refused at once, and named', async (t) => {
  const { client, post } = await startServer(t, { maxQueuedRequests: 4, maxQueuedTokens: 100 });
  client.script = (submission) => {
    for (let i = 0; i < submission.request.n; i++) submission.say('a', { finishReason: 'stop' }, i);
  };
  // Eight run; each prompt has one token more, <s>.
  const prompts = (count: number, length: number) => Array<string>(count).fill('b'.repeat(length));
  for (const [ask, words] of [
    [{ prompt: prompts(13, 1) }, '13 choices'],
    [{ prompt: prompts(7, 1), n: 2 }, '14 choices'],
    [{ prompt: prompts(2, 50) }, '102 tokens'],
    [{ prompt: prompts(2, 25), n: 2 }, '104 tokens'],
  ] as const) {
    const response = await post('/v1/completions', ask);
    t.equal(response.status, 400);
    const { error } = (await response.json()) as { error: { param: string; message: string } };
    t.equal(error.param, 'prompt');
    t.match(error.message, words);
  }
  t.equal(client.submissions.length, 0);
  for (const prompt of [prompts(12, 1), prompts(2, 49), 'b'.repeat(40)])
    t.equal((await post('/v1/completions', { prompt })).status, 200);
  const { post: postAny } = await startServer(t, { maxQueuedRequests: 0, maxQueuedTokens: 0 });
  const many = await postAny('/v1/completions', { prompt: prompts(1025, 1) });
  t.match(
    await many.json(),
    { error: { message: /1024/ } },
    'without bounds only the list has one',
  );
});

t.test('echo', async (t) => {
  const { client, post } = await startServer(t);
  const whole = await (await post(path, { prompt: 'ab', echo: true })).json();
  t.match(whole, { choices: [{ text: 'abHello' }] });
  const ids = await (await post(path, { prompt: [104, 105], echo: true })).json();
  t.match(ids, { choices: [{ text: 'hiHello' }] }, 'ids are decoded');
  const half = await (await post(path, { prompt: 'a\ud83e', echo: true })).text();
  t.match(half, '"text":"a\ufffdHello"', 'half a surrogate pair is no character');
  const stream = await readEvents(await post(path, { prompt: 'ab', echo: true, stream: true }));
  t.match(stream, [{ choices: [{ text: 'abHel' }] }, { choices: [{ text: 'lo' }] }, '[DONE]']);
  client.script = (submission) => submission.say('X', { finishReason: 'length' });
  for (const streamed of [false, true]) {
    const body = { prompt: 'ab', echo: true, max_tokens: 0, stream: streamed };
    const response = await post(path, body);
    const answer: unknown = streamed ? (await readEvents(response))[0] : await response.json();
    t.match(answer, { choices: [{ text: 'ab', finish_reason: 'length' }] }, 'only the echo');
  }
});

t.test('return_token_ids', async (t) => {
  const { post } = await startServer(t);
  const body = { prompt: 'ab', return_token_ids: true };
  t.match(await (await post(path, body)).json(), {
    choices: [{ prompt_token_ids: [256, 97, 98], token_ids: [72, 101, 108, 108, 111] }],
  });
  const [first, second] = (await readEvents(
    await post(path, { ...body, stream: true }),
  )) as Chunk[];
  t.match(first!.choices[0], { prompt_token_ids: [256, 97, 98], token_ids: [72, 101, 108] });
  t.match(second!.choices[0], { token_ids: [108, 111] });
  t.notOk('prompt_token_ids' in second!.choices[0]!, 'the prompt is in the first chunk only');
});

t.test('chunks without news are not sent, those with held-back text are', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) => {
    submission.say('');
    submission.say('', { tokenIds: Int32Array.of(200), numOutputTokens: 1 });
    submission.say('', { finishReason: 'length' });
  };
  const body = { prompt: 'ab', stream: true, return_token_ids: true };
  const events = await readEvents(await post(path, body));
  t.match(events, [
    { choices: [{ text: '', token_ids: [200], finish_reason: null }] },
    { choices: [{ text: '', token_ids: [], finish_reason: 'length' }] },
    '[DONE]',
  ]);
});

t.test('a refused request is an answer, and its siblings are ended', async (t) => {
  const { client, post, server } = await startServer(t);
  client.script = () => undefined;
  client.refusal = ({ promptTokenIds }) =>
    promptTokenIds.at(-1) === 98
      ? new RequestError('queue_full', 'the queue is full', null, 2500)
      : null;
  for (const stream of [false, true]) {
    const response = await post(path, { prompt: ['a', 'b'], stream });
    t.equal(response.status, 429);
    t.equal(response.headers.get('retry-after'), '3');
    t.match(await response.json(), {
      error: { type: 'RateLimitError', message: 'the queue is full', param: null, code: 429 },
    });
  }
  t.ok(client.submissions.every((submission) => submission.aborted));
  t.equal(server.numOpen, 0);
});

t.test('an error before the first byte has a status', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) => submission.fail(new RequestError('invalid_logits', 'NaN'));
  for (const stream of [false, true]) {
    const response = await post(path, { prompt: 'a', stream });
    t.equal(response.status, 500);
    t.match(await response.json(), { error: { type: 'InternalServerError', message: 'NaN' } });
  }
});

t.test('an error after the first byte is one event, and the connection closes', async (t) => {
  const { client, port } = await startServer(t);
  client.script = (submission) => {
    submission.say('par');
    submission.fail(new RequestError('worker_lost', 'the worker is gone'));
    submission.say('never shown');
  };
  const raw = await RawClient.open(port);
  raw.post(path, { prompt: 'a', stream: true });
  await raw.closed();
  const text = raw.text.slice(raw.text.indexOf('data: ')).replaceAll(/\r\n[0-9a-f]*(\r\n)*/g, '');
  const events = text.split('\n\n').filter((event) => event !== '');
  t.equal(events.length, 2);
  t.match(JSON.parse(events[1]!.slice('data: '.length)), {
    error: { message: 'the worker is gone', type: 'InternalServerError', param: null, code: 500 },
  });
});

t.test('one choice that fails ends the whole answer', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) => {
    submission.say('whole', { finishReason: 'stop' }, 0);
    submission.fail(new RequestError('engine_lost', 'the engine is gone'), 1);
  };
  const response = await post(path, { prompt: 'a', n: 2 });
  t.equal(response.status, 503);
  t.equal(response.headers.get('retry-after'), '1');
});

t.test('outputs that come before the acceptance are credited after it', async (t) => {
  const { client, post } = await startServer(t);
  let accept = () => undefined as unknown;
  client.acceptance = new Promise((resolve) => (accept = resolve));
  const submitted = client.nextSubmission();
  client.script = (submission) => submission.say('early');
  const streaming = post(path, { prompt: 'a', stream: true });
  const submission = await submitted;
  const response = await streaming;
  t.equal(response.status, 200);
  t.same(submission.consumed, []);
  accept();
  await new Promise((resolve) => setImmediate(resolve));
  t.same(submission.consumed, [{ index: 0, bytes: 5 }]);
  submission.say('', { finishReason: 'stop' });
  t.match(await response.text(), /early.*\[DONE\]/s);
});

t.test('what follows the end of a choice is dropped', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) => {
    submission.say('end', { finishReason: 'stop' }, 0);
    submission.say(' and more', { finishReason: 'length' }, 0);
    submission.say('other', { finishReason: 'stop' }, 1);
  };
  t.match(await (await post(path, { prompt: 'a', n: 2 })).json(), {
    choices: [
      { text: 'end', finish_reason: 'stop' },
      { text: 'other', finish_reason: 'stop' },
    ],
    usage: { completion_tokens: 8 },
  });
});
