// Clients that people use, unchanged: the openai package, the ai package, and openai for Python.
import { spawn } from 'node:child_process';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';
import t from 'tap';
import { RequestError } from '../../../common/errors.ts';
import { startServer } from './fakes.ts';

const model = 'test-model';
const apiKey = 'the-key';
const messages = [{ role: 'user' as const, content: 'hi' }];

t.test('openai for JavaScript', async (t) => {
  const { url, client } = await startServer(t, { apiKeys: [apiKey] });
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });

  const models = await openai.models.list();
  t.same(
    models.data.map(({ id }) => id),
    ['test-model', 'alias/of-it'],
  );
  t.equal((await openai.models.retrieve('alias/of-it')).id, 'alias/of-it');

  const chat = await openai.chat.completions.create({ model, messages, logprobs: true });
  t.equal(chat.choices[0]!.message.content, 'Hello');
  t.equal(chat.choices[0]!.logprobs!.content!.length, 5);
  t.equal(chat.usage!.total_tokens, 24);

  const completion = await openai.completions.create({ model, prompt: ['a', 'b'], echo: true });
  t.same(
    completion.choices.map(({ text }) => text),
    ['aHello', 'bHello'],
  );

  let text = '';
  let usage = 0;
  const options = { stream: true, stream_options: { include_usage: true } } as const;
  for await (const chunk of await openai.chat.completions.create({ model, messages, ...options })) {
    text += chunk.choices[0]?.delta.content ?? '';
    usage += chunk.usage?.total_tokens ?? 0;
  }
  t.equal(text, 'Hello');
  t.equal(usage, 24);

  const runner = openai.chat.completions.stream({ model, messages });
  t.equal((await runner.finalMessage()).content, 'Hello', 'the stream helper');

  const stream = await openai.completions.create({ model, prompt: 'a', stream: true });
  text = '';
  for await (const chunk of stream) text += chunk.choices[0]!.text;
  t.equal(text, 'Hello');

  t.match(await errorOf(openai.chat.completions.create({ model: 'other', messages })), {
    status: 404,
    type: 'NotFoundError',
    param: 'model',
  });
  t.match(await errorOf(openai.chat.completions.create({ model, messages, temperature: 3 })), {
    status: 400,
    param: 'temperature',
  });
  const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'wrong', maxRetries: 0 });
  t.match(await errorOf(stranger.models.list()), { status: 401 });

  client.script = (submission) => {
    submission.say('some');
    submission.fail(new RequestError('worker_lost', 'the worker is gone'));
  };
  const broken = await openai.chat.completions.create({ model, messages, stream: true });
  const read = async () => {
    for await (const chunk of broken) t.equal(chunk.object, 'chat.completion.chunk');
  };
  t.match(await errorOf(read()), /the worker is gone/, 'a broken stream is an error');

  client.script = (submission) => submission.say('some');
  const submitted = client.nextSubmission();
  const left = await openai.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of left) if (chunk.choices[0]!.delta.content === 'some') break;
  await (await submitted).untilAborted();
});

t.test('ai', async (t) => {
  const { url } = await startServer(t, { apiKeys: [apiKey] });
  const provider = createOpenAICompatible({
    name: 'vllm-ts',
    baseURL: `${url}/v1`,
    apiKey,
    includeUsage: true,
  });
  const whole = await generateText({ model: provider(model), prompt: 'hi', maxOutputTokens: 20 });
  t.equal(whole.text, 'Hello');
  t.equal(whole.finishReason, 'stop');
  t.match(whole.usage, { inputTokens: 19, outputTokens: 5 });
  const streamed = streamText({ model: provider(model), messages, temperature: 0.5 });
  let text = '';
  for await (const delta of streamed.textStream) text += delta;
  t.equal(text, 'Hello');
  t.equal(await streamed.finishReason, 'stop');
  t.match(await streamed.usage, { inputTokens: 19, outputTokens: 5 });
  const completion = await generateText({ model: provider.completionModel(model), prompt: 'hi' });
  t.equal(completion.text, 'Hello');
});

const python = `
import sys
from openai import OpenAI, BadRequestError
client = OpenAI(base_url=sys.argv[1] + '/v1', api_key='${apiKey}', max_retries=0)
messages = [{'role': 'user', 'content': 'hi'}]
chat = client.chat.completions.create(model='${model}', messages=messages, logprobs=True, top_logprobs=2)
assert chat.choices[0].message.content == 'Hello', chat
assert len(chat.choices[0].logprobs.content[0].top_logprobs) == 2, chat
text = ''
for chunk in client.chat.completions.create(model='${model}', messages=messages, stream=True,
                                            stream_options={'include_usage': True}):
    if chunk.choices:
        text += chunk.choices[0].delta.content or ''
    else:
        assert chunk.usage.total_tokens == 24, chunk
assert text == 'Hello', text
completion = client.completions.create(model='${model}', prompt=[1, 2], logprobs=1,
                                       extra_body={'top_k': 5, 'min_p': 0.1})
assert completion.choices[0].text == 'Hello', completion
assert completion.choices[0].logprobs.tokens == list('Hello'), completion
text = ''.join(chunk.choices[0].text for chunk in
               client.completions.create(model='${model}', prompt='a', stream=True))
assert text == 'Hello', text
assert [model.id for model in client.models.list()] == ['test-model', 'alias/of-it']
try:
    client.chat.completions.create(model='${model}', messages=messages, top_p=2)
    raise AssertionError('top_p 2 was taken')
except BadRequestError as error:
    assert error.param == 'top_p', error
print('passed')
`;

const hasPython = (await runPython(['-c', 'import openai'])).code === 0;
const skip = hasPython ? false : 'Python with the openai package is not here';

t.test('openai for Python', { skip }, async (t) => {
  const { url } = await startServer(t, { apiKeys: [apiKey] });
  const { code, output } = await runPython(['-c', python, url]);
  t.equal(code, 0, output);
  t.match(output, /passed/);
});

async function errorOf(refused: PromiseLike<unknown>): Promise<unknown> {
  try {
    await refused;
  } catch (error) {
    return error;
  }
  throw new Error('it was not refused');
}

function runPython(args: string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn('python3', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    }
    child.on('error', (error) => resolve({ code: -1, output: error.message }));
    child.on('close', (code) => resolve({ code, output }));
  });
}
