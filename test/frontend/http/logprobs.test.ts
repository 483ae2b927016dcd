// Logprobs in the shapes of both APIs. The fake's token is second best at -1 after "!" at -0.5.
import t from 'tap';
import { CompletionLogprobsWriter } from '../../../frontend/http/logprobs.ts';
import { fakeLogprobs, listOf, startServer, readEvents, type Submission } from './fakes.ts';

interface Chunk {
  readonly choices: [{ readonly text: string }];
}

const messages = [{ role: 'user', content: 'hi' }];
const sayAb = (submission: Submission) => {
  submission.say('a');
  submission.say('b', { finishReason: 'stop' });
};

/** Brings the prompt's logprobs before any text, as a chunked prefill does. */
const echoing = (submission: Submission) => {
  const { n } = submission.request;
  for (let index = n - 1; index > 0; index--) submission.say('a', { finishReason: 'stop' }, index);
  submission.say('', { promptLogprobs: submission.promptLogprobs() });
  submission.say('a', { finishReason: 'stop' });
};

t.test('chat', async (t) => {
  const { client, post } = await startServer(t);
  client.script = sayAb;
  const path = '/v1/chat/completions';
  const token = (text: string, logprob: number) => ({
    token: text,
    logprob,
    bytes: [...Buffer.from(text)],
  });
  const entry = (text: string, numTop: number) => ({
    ...token(text, -1),
    top_logprobs: [token('!', -0.5), token(text, -1), token('?', -1.5)].slice(0, numTop),
  });
  for (const numTop of [0, 1, 2, 3]) {
    const body = { messages, logprobs: true, top_logprobs: numTop };
    const answer = await (await post(path, body)).json();
    t.match(answer, {
      choices: [{ logprobs: { content: [entry('a', numTop), entry('b', numTop)] } }],
    });
    const { length } = (
      answer as { choices: [{ logprobs: { content: [{ top_logprobs: unknown[] }] } }] }
    ).choices[0].logprobs.content[0].top_logprobs;
    t.equal(length, numTop, 'each id once');
  }
  const body = { messages, logprobs: true, top_logprobs: 1, stream: true };
  t.match(await readEvents(await post(path, body)), [
    { choices: [{ delta: { role: 'assistant' }, logprobs: null }] },
    { choices: [{ delta: { content: 'a' }, logprobs: { content: [entry('a', 1)] } }] },
    { choices: [{ delta: { content: 'b' }, logprobs: { content: [entry('b', 1)] } }] },
    '[DONE]',
  ]);
  t.match(client.submissions[0]!.request.sampling, { logprobs: 0, promptLogprobs: null });
});

t.test('completions', async (t) => {
  const { client, post } = await startServer(t);
  client.script = sayAb;
  const path = '/v1/completions';
  const answer = (await (await post(path, { prompt: 'xy', logprobs: 1 })).json()) as {
    choices: { logprobs: unknown }[];
  };
  t.same(answer.choices[0]!.logprobs, {
    text_offset: [0, 1],
    token_logprobs: [-1, -1],
    tokens: ['a', 'b'],
    top_logprobs: [
      { a: -1, '!': -0.5 },
      { b: -1, '!': -0.5 },
    ],
  });
  t.match(await (await post(path, { prompt: 'xy', logprobs: 0 })).json(), {
    choices: [{ logprobs: { top_logprobs: [{ a: -1 }, { b: -1 }] } }],
  });
  t.match(await readEvents(await post(path, { prompt: 'xy', logprobs: 1, stream: true })), [
    { choices: [{ logprobs: { text_offset: [0], tokens: ['a'] } }] },
    { choices: [{ logprobs: { text_offset: [1], tokens: ['b'] } }] },
    '[DONE]',
  ]);
  const asIds = { prompt: 'xy', logprobs: 1, return_tokens_as_token_ids: true };
  t.match(await (await post(path, asIds)).json(), {
    choices: [{ logprobs: { tokens: ['token_id:97', 'token_id:98'] } }],
  });
});

t.test('echo has the logprobs of the prompt as well', async (t) => {
  const { client, post } = await startServer(t);
  client.script = echoing;
  const path = '/v1/completions';
  const body = { prompt: 'xy', logprobs: 1, echo: true, n: 2 };
  const expected = {
    text_offset: [0, 3, 4, 5],
    token_logprobs: [null, -1, -1, -1],
    tokens: ['<s>', 'x', 'y', 'a'],
    top_logprobs: [null, { x: -1, '!': -0.5 }, { y: -1, '!': -0.5 }, { a: -1, '!': -0.5 }],
  };
  const whole = (await (await post(path, body)).json()) as {
    choices: { text: string; logprobs: unknown }[];
  };
  t.equal(client.submissions[0]!.request.sampling.promptLogprobs, 1);
  const streamed = (await readEvents(await post(path, { ...body, stream: true }))).slice(0, -1);
  t.equal(streamed.length, 2, 'choices wait for the logprobs that the first one brings');
  const choices = [
    ...whole.choices,
    ...(streamed as (typeof whole)[]).map((event) => event.choices[0]!),
  ];
  for (const choice of choices) {
    t.equal(choice.text, 'xya');
    t.same(choice.logprobs, expected);
  }
});

t.test('an echoed stream waits for the prompt’s logprobs, and no longer', async (t) => {
  const { client, post } = await startServer(t);
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const body = { prompt: 'xy', logprobs: 1, echo: true, stream: true };
  const answering = post('/v1/completions', body);
  const submission = await submitted;
  submission.say('', { promptLogprobs: submission.promptLogprobs() });
  submission.say('a');
  const reader = (await answering).body!.getReader();
  const next = async () => Buffer.from((await reader.read()).value ?? '[DONE]').toString();
  t.match(await next(), '"text":"xya"');
  submission.say('b');
  let said = '';
  while (!said.includes('"text":"b"')) said += await next();
  submission.say('c', { finishReason: 'stop' });
  while (!said.includes('[DONE]')) said += await next();
  t.match(said, '"text":"c"');
});

t.test(
  'what a choice has said is sent at its end, with the prompt’s logprobs or without',
  async (t) => {
    const { client, post } = await startServer(t);
    client.script = sayAb;
    const body = { prompt: 'xy', logprobs: 1, echo: true, stream: true };
    const events = await readEvents(await post('/v1/completions', body));
    const texts = events.slice(0, -1).map((event) => (event as Chunk).choices[0].text);
    t.same(texts.join(''), 'xyab');
  },
);

t.test('a prompt’s logprobs are bounded over all choices', async (t) => {
  const { client, post } = await startServer(t, { maxModelLen: 4096 });
  client.script = echoing;
  // With <s> 2,048 tokens, and 4 entries for each.
  const prompt = 'b'.repeat(2047);
  const asks: [object, number, string?][] = [
    [{ n: 128, prompt_logprobs: 15 }, 200],
    [{ n: 128, prompt_logprobs: 16 }, 400, 'prompt_logprobs'],
    [{ n: 128, echo: true, logprobs: 16 }, 400, 'logprobs'],
    [{ n: 128, echo: true, logprobs: 15, stream: true }, 200],
    [{ n: 128, echo: true, logprobs: 16, stream: true }, 400, 'logprobs'],
    [{ n: 65, prompt: [prompt, prompt], prompt_logprobs: 15 }, 400, 'prompt_logprobs'],
    [{ n: 128, logprobs: 20 }, 200],
  ];
  for (const [ask, status, param] of asks) {
    const response = await post('/v1/completions', { prompt, ...ask });
    const text = await response.text();
    t.equal(response.status, status, JSON.stringify(ask));
    if (param !== undefined) t.match(JSON.parse(text), { error: { param, code: 400 } });
  }
});

t.test('prompt_logprobs', async (t) => {
  const { client, post } = await startServer(t);
  client.script = echoing;
  const expected = [
    null,
    {
      '120': { logprob: -1, rank: 2, decoded_token: 'x' },
      '33': { logprob: -0.5, rank: 1, decoded_token: '!' },
    },
  ];
  const completion = { prompt: 'x', prompt_logprobs: 1, n: 2 };
  const answer = (await (await post('/v1/completions', completion)).json()) as {
    choices: { prompt_logprobs: unknown }[];
  };
  for (const choice of answer.choices) t.same(choice.prompt_logprobs, expected);
  const chat = (await (
    await post('/v1/chat/completions', { messages, prompt_logprobs: 0 })
  ).json()) as { prompt_logprobs: unknown[] };
  t.equal(chat.prompt_logprobs.length, 19);
  t.equal(chat.prompt_logprobs[0], null);
  t.same(chat.prompt_logprobs[1], { '117': { logprob: -1, rank: 2, decoded_token: 'u' } });
});

t.test('logprobs that JSON cannot write, and tokens that are objects’ names', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) =>
    submission.say('a', {
      finishReason: 'stop',
      logprobs: listOf([
        {
          ids: Int32Array.of(1, 2),
          logprobs: Float32Array.of(-Infinity, -1),
          ranks: Int32Array.of(9, 1),
          bytes: [Buffer.from('__proto__'), Uint8Array.of(0xe2, 0x82)],
        },
      ]),
    });
  const text = await (await post('/v1/completions', { prompt: 'x', logprobs: 1 })).text();
  t.match(text, '"top_logprobs":[{"__proto__":-9999,"\ufffd":-1}]');
  const chat = await post('/v1/chat/completions', { messages, logprobs: true, top_logprobs: 1 });
  t.match(await chat.json(), {
    choices: [
      { logprobs: { content: [{ logprob: -9999, top_logprobs: [{ bytes: [0xe2, 0x82] }] }] } },
    ],
  });
});

t.test(
  'ids that the request names are the alternatives, the token itself before them',
  async (t) => {
    const { client, post } = await startServer(t);
    client.script = sayAb;
    const logprob_token_ids = [98, 40, 32];
    const token = (id: number, logprob: number) => ({
      token: String.fromCharCode(id),
      logprob,
      bytes: [id],
    });
    const others = [token(40, -5), token(32, -4)];
    const content = [
      { ...token(97, -1), top_logprobs: [token(97, -1), token(98, -12.25), ...others] },
      { ...token(98, -1), top_logprobs: [token(98, -1), ...others] },
    ];
    const chat = { messages, logprobs: true, top_logprobs: 1, logprob_token_ids };
    const whole = (await (await post('/v1/chat/completions', chat)).json()) as {
      choices: [{ logprobs: unknown }];
    };
    t.same(whole.choices[0].logprobs, { content }, 'whatever top_logprobs says');
    t.match(await readEvents(await post('/v1/chat/completions', { ...chat, stream: true })), [
      { choices: [{ delta: { role: 'assistant' } }] },
      { choices: [{ logprobs: { content: [content[0]] } }] },
      { choices: [{ logprobs: { content: [content[1]] } }] },
      '[DONE]',
    ]);

    const completion = { prompt: 'xy', logprobs: 1, logprob_token_ids };
    const top_logprobs = [
      { a: -1, b: -12.25, '(': -5, ' ': -4 },
      { b: -1, '(': -5, ' ': -4 },
    ];
    const text = (await (await post('/v1/completions', completion)).json()) as {
      choices: [{ logprobs: unknown }];
    };
    t.same(text.choices[0].logprobs, {
      text_offset: [0, 1],
      token_logprobs: [-1, -1],
      tokens: ['a', 'b'],
      top_logprobs,
    });
    t.match(await readEvents(await post('/v1/completions', { ...completion, stream: true })), [
      { choices: [{ logprobs: { top_logprobs: [top_logprobs[0]] } }] },
      { choices: [{ logprobs: { top_logprobs: [top_logprobs[1]] } }] },
      '[DONE]',
    ]);

    client.script = echoing;
    const echo = (await (await post('/v1/completions', { ...completion, echo: true })).json()) as {
      choices: [{ logprobs: { top_logprobs: unknown[] } }];
    };
    t.same(
      echo.choices[0].logprobs.top_logprobs.at(-2),
      { y: -1, '!': -0.5 },
      'of a prompt the best are shown',
    );
    t.same(echo.choices[0].logprobs.top_logprobs.at(-1), top_logprobs[0]);
  },
);

t.test('finish_reason repetition', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) =>
    submission.say('aaa', { finishReason: 'repetition', stopReason: 'repetition_detected' });
  const repetition_detection = { max_pattern_size: 1, min_count: 3 };
  for (const [path, prompt] of [
    ['/v1/completions', { prompt: 'x' }],
    ['/v1/chat/completions', { messages }],
  ] as const) {
    const body = { ...prompt, repetition_detection };
    const ended = { finish_reason: 'repetition', stop_reason: 'repetition_detected' };
    t.match(await (await post(path, body)).json(), { choices: [ended] });
    const events = await readEvents(await post(path, { ...body, stream: true }));
    t.match(events.at(-2), { choices: [ended] });
    t.equal(events.at(-1), '[DONE]');
  }
});

t.test('an offset makes the texts before it, each once', (t) => {
  const list = listOf(Array.from({ length: 100 }, () => fakeLogprobs(97, 0)));
  const textOf = list.textOf.bind(list);
  let numTexts = 0;
  let most = 0;
  Object.assign(list, {
    textOf: (entry: number) => {
      numTexts++;
      return textOf(entry);
    },
  });
  const writer = new CompletionLogprobsWriter({ asTokenIds: false, numTop: 0, areNamed: false });
  const offsets = writer.write(null, list).text_offset;
  for (const index of [0, 10, 3, 60]) {
    t.equal(offsets.at(index), index);
    most = Math.max(most, index);
    t.equal(numTexts, most);
  }
  const next = writer.write(null, list).text_offset;
  t.equal(next.at(0), 100, 'the next part goes on where this one ends');
  t.equal(numTexts, 100);
  t.end();
});
