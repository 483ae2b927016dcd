// /v1/chat/completions: whole answers and streams, roles, echo, and what messages may be.
import t from 'tap';
import type { TextServiceLike } from '../../../frontend/http/backend.ts';
import { fakeText, readEvents, startServer } from './fakes.ts';

const path = '/v1/chat/completions';
const messages = [{ role: 'user', content: 'hi' }];

interface Answer {
  readonly choices: readonly Record<string, unknown>[];
  readonly usage: unknown;
}

t.test('an answer', async (t) => {
  const { client, post } = await startServer(t);
  const body = (await (await post(path, { messages, model: 'alias/of-it' })).json()) as Answer;
  // As in vLLM the answer has the first served name, whichever was asked for.
  t.match(body, { id: /^chatcmpl-/, object: 'chat.completion', model: 'test-model' });
  t.same(body.choices, [
    {
      index: 0,
      message: { role: 'assistant', content: 'Hello', refusal: null },
      logprobs: null,
      finish_reason: 'stop',
      stop_reason: null,
    },
  ]);
  t.same(body.usage, { prompt_tokens: 19, completion_tokens: 5, total_tokens: 24 });
  const { promptTokenIds } = client.submissions[0]!.request;
  t.equal(Buffer.from(promptTokenIds.slice(1)).toString(), 'user:hi\nassistant:');
});

t.test('a stream', async (t) => {
  const { post } = await startServer(t);
  const stream_options = { include_usage: true };
  const events = (await readEvents(
    await post(path, { messages, stream: true, stream_options }),
  )) as Answer[];
  t.match(events[0], { id: /^chatcmpl-/, object: 'chat.completion.chunk', model: 'test-model' });
  t.same(
    events.slice(0, 3).map((event) => event.choices),
    [
      [
        {
          index: 0,
          logprobs: null,
          finish_reason: null,
          delta: { role: 'assistant', content: '' },
        },
      ],
      [{ index: 0, logprobs: null, finish_reason: null, delta: { content: 'Hel' } }],
      [
        {
          index: 0,
          logprobs: null,
          finish_reason: 'stop',
          stop_reason: null,
          delta: { content: 'lo' },
        },
      ],
    ],
  );
  t.same(events[3]!.choices, []);
  t.same(events[3]!.usage, { prompt_tokens: 19, completion_tokens: 5, total_tokens: 24 });
  t.equal(events[4], '[DONE]');
  t.equal(events.length, 5);
  t.notOk('usage' in events[0]!);
});

t.test('n choices: a role chunk each, first of all', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) => {
    submission.say('b', { finishReason: 'stop', stopReason: 7 }, 1);
    submission.say('a', { finishReason: 'length' }, 0);
  };
  const events = await readEvents(await post(path, { messages, n: 2, stream: true }));
  t.match(events, [
    { choices: [{ index: 0, delta: { role: 'assistant', content: '' } }] },
    { choices: [{ index: 1, delta: { role: 'assistant', content: '' } }] },
    { choices: [{ index: 1, delta: { content: 'b' }, finish_reason: 'stop', stop_reason: 7 }] },
    { choices: [{ index: 0, delta: { content: 'a' }, finish_reason: 'length' }] },
    '[DONE]',
  ]);
});

t.test('text parts, null contents and the developer role', async (t) => {
  const { client, post } = await startServer(t);
  const response = await post(path, {
    messages: [
      { role: 'developer', content: 'be kind' },
      { role: 'assistant', content: null, refusal: null, tool_calls: [] },
      {
        role: 'user',
        content: [{ type: 'text', text: 'a' }, { type: 'text', text: 'b' }, 'c'],
      },
    ],
  });
  t.equal(response.status, 200);
  const ids = client.submissions[0]!.request.promptTokenIds.slice(1);
  t.equal(Buffer.from(ids).toString(), 'system:be kind\nassistant:\nuser:a\nb\nc\nassistant:');
});

t.test(
  'continue_final_message goes on in the role of the final message, echo shows it',
  async (t) => {
    const { client, post } = await startServer(t);
    const body = {
      messages: [...messages, { role: 'assistant', content: 'Well, ' }],
      continue_final_message: true,
      echo: true,
    };
    t.match(await (await post(path, body)).json(), {
      choices: [{ message: { role: 'assistant', content: 'Well, Hello' } }],
    });
    const ids = client.submissions[0]!.request.promptTokenIds.slice(1);
    t.equal(Buffer.from(ids).toString(), 'user:hi\nassistant:Well, ', 'no turn is opened');
    const events = await readEvents(await post(path, { ...body, stream: true }));
    t.match(events.slice(0, 3), [
      { choices: [{ delta: { role: 'assistant', content: '' } }] },
      { choices: [{ delta: { content: 'Well, ' } }] },
      { choices: [{ delta: { content: 'Hel' } }] },
    ]);
    const half = { ...body, messages: [{ role: 'assistant', content: '\ud83e' }] };
    t.match(await (await post(path, half)).text(), '"content":"\ufffdHello"', 'as it was read');
    const user = { messages, add_generation_prompt: false };
    t.match(await (await post(path, user)).json(), { choices: [{ message: { role: 'user' } }] });
    t.match(
      await (await post(path, { messages, echo: true })).json(),
      { choices: [{ message: { content: 'Hello' } }] },
      'another role is not echoed',
    );
  },
);

t.test('return_token_ids', async (t) => {
  const { post } = await startServer(t);
  const body = { messages, return_token_ids: true };
  t.match(await (await post(path, body)).json(), {
    prompt_token_ids: [256, 117],
    choices: [{ token_ids: [72, 101, 108, 108, 111] }],
  });
  const events = (await readEvents(await post(path, { ...body, stream: true }))) as object[];
  t.match(events, [
    { prompt_token_ids: [256, 117] },
    { choices: [{ token_ids: [72, 101, 108] }] },
    { choices: [{ token_ids: [108, 111] }] },
    '[DONE]',
  ]);
  t.equal(events.filter((event) => Object.hasOwn(event, 'prompt_token_ids')).length, 1);
});

t.test('continuous usage counts each choice by itself', async (t) => {
  const { post } = await startServer(t);
  const stream_options = { continuous_usage_stats: true };
  const events = await readEvents(await post(path, { messages, stream: true, stream_options }));
  t.match(events, [
    { usage: { prompt_tokens: 19, completion_tokens: 0, total_tokens: 19 } },
    { usage: { prompt_tokens: 19, completion_tokens: 3, total_tokens: 22 } },
    { usage: { prompt_tokens: 19, completion_tokens: 5, total_tokens: 24 } },
    '[DONE]',
  ]);
});

t.test('arguments for the chat template', async (t) => {
  const server = await startServer(t);
  const seen: unknown[] = [];
  const text: TextServiceLike = {
    ...fakeText,
    applyChatTemplate: (list, options) => {
      seen.push(options);
      return fakeText.applyChatTemplate(list, options);
    },
  };
  server.backend = { client: server.client, text };
  const kwargs = { enable_thinking: false, unheard_of: 1 };
  const fields = { messages, chat_template_kwargs: kwargs, add_special_tokens: true };
  const expected = { templateArgs: kwargs, addSpecialTokens: true };
  for (const route of [path, '/tokenize']) {
    const response = await server.post(route, fields);
    t.equal(response.status, 200);
    t.equal(response.headers.get('x-ignored-fields'), 'chat_template_kwargs.unheard_of');
    t.match(seen.pop(), expected);
  }
  await server.post(path, { messages });
  t.match(seen.pop(), { templateArgs: {}, addSpecialTokens: false });

  const documents = [{ title: 'a', text: 'b' }];
  const asked = { messages, reasoning_effort: 'high', documents };
  const both = {
    ...asked,
    chat_template_kwargs: { reasoning_effort: 'low', enable_thinking: true },
  };
  const response = await server.post(path, both);
  t.equal(response.status, 200);
  t.equal(response.headers.get('x-ignored-fields'), 'documents', 'the template has none');
  t.strictSame((seen.pop() as { templateArgs: unknown }).templateArgs, {
    ...{ reasoning_effort: 'high', enable_thinking: true },
    documents,
  });
  const nothing = { messages, reasoning_effort: 'none', documents: [] };
  t.equal((await server.post(path, nothing)).headers.get('x-ignored-fields'), null);
  t.match(seen.pop(), { templateArgs: { reasoning_effort: 'none', documents: [] } });
});

t.test('return_prompt_text', async (t) => {
  const server = await startServer(t);
  const fields = { messages, return_prompt_text: true };
  const prompt_text = 'user:hi\nassistant:';
  t.match(await (await server.post(path, fields)).json(), { prompt_text });
  const events = await readEvents(await server.post(path, { ...fields, stream: true }));
  const texts = events.map((event) => (event as { prompt_text?: string }).prompt_text);
  t.same(texts, [prompt_text, ...texts.slice(1).map(() => undefined)], 'with the first chunk');
  const without = (await (await server.post(path, { messages })).json()) as object;
  t.notOk('prompt_text' in without);
});
