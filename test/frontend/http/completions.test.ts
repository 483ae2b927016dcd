// /v1/completions: whole answers and streams, their shapes and their counts.
import t from 'tap';
import { readEvents, startServer } from './fakes.ts';

t.test('a completion', async (t) => {
  const { client, post } = await startServer(t);
  const response = await post('/v1/completions', { prompt: 'ab' });
  t.equal(response.status, 200);
  t.match(await response.json(), {
    id: /^cmpl-/,
    object: 'text_completion',
    model: 'test-model',
    choices: [
      { index: 0, text: 'Hello', logprobs: null, finish_reason: 'stop', stop_reason: null },
    ],
    usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 },
  });
  const { request } = client.submissions[0]!;
  t.same(Array.from(request.promptTokenIds), [256, 97, 98]);
  t.equal(request.sampling.maxTokens, 16);
  t.equal(request.text.finalOnly, true);
});

t.test('a stream', async (t) => {
  const { client, post } = await startServer(t);
  const response = await post('/v1/completions', {
    prompt: 'ab',
    stream: true,
    stream_options: { include_usage: true },
  });
  t.equal(response.headers.get('content-type'), 'text/event-stream; charset=utf-8');
  const events = await readEvents(response);
  t.match(events, [
    { choices: [{ index: 0, text: 'Hel', logprobs: null, finish_reason: null }] },
    { choices: [{ index: 0, text: 'lo', finish_reason: 'stop', stop_reason: null }] },
    { choices: [], usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 } },
    '[DONE]',
  ]);
  t.notOk('usage' in (events[0] as object), 'usage is in its own chunk only');
  t.same(client.submissions[0]!.consumed, [
    { index: 0, bytes: 3 },
    { index: 0, bytes: 2 },
  ]);
});
