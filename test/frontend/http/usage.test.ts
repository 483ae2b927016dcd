// Usage in its forms, and what else answers say of themselves.
import t from 'tap';
import type { Usage } from '../../../frontend/http/usage.ts';
import { readEvents, startServer } from './fakes.ts';

const routes = [
  ['/v1/completions', { prompt: 'a' }],
  ['/v1/chat/completions', { messages: [{ role: 'user', content: 'a' }] }],
] as const;
const fingerprint = /^vllm-ts-\d+\.\d+\.\d+-[0-9a-f]+$/;

interface Answer {
  readonly usage?: { readonly prompt_tokens_details?: { readonly cached_tokens: number } };
  readonly system_fingerprint?: string;
}

t.test('usage in each chunk is of its choice and its prompt', async (t) => {
  const { client, post } = await startServer(t, { enablePromptTokensDetails: true });
  // Each submission is one prompt; its second choice ends before its first.
  client.script = (submission) => {
    const numCachedTokens = submission.request.promptTokenIds.length - 1;
    submission.say('bbb', { finishReason: 'stop', numCachedTokens: 0 }, 1);
    submission.say('a', { finishReason: 'stop', numCachedTokens }, 0);
  };
  const stream_options = { include_usage: true, continuous_usage_stats: true };
  const fields = { prompt: ['x', 'xyz'], n: 2, seed: 1, stream: true, stream_options };
  const events = await readEvents(await post('/v1/completions', fields));
  type Chunk = { choices: { index: number }[]; usage: Usage };
  const chunks = events.slice(0, -2) as Chunk[];
  const byChoice = Object.fromEntries(
    chunks.map(({ choices, usage }) => [
      choices[0]!.index,
      [usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details?.cached_tokens],
    ]),
  );
  // With <s>. What is cached is known with the first choice's chunk.
  t.same(byChoice, { 0: [2, 1, 1], 1: [2, 3, 0], 2: [4, 1, 3], 3: [4, 3, 0] });
  t.match(events.at(-2), {
    usage: { prompt_tokens: 6, completion_tokens: 8, prompt_tokens_details: { cached_tokens: 4 } },
  });
});

for (const [path, body] of routes) {
  t.test(`${path}: cached tokens, of the first choice, where the server is asked to`, async (t) => {
    const details = async (flag: boolean) => {
      const { client, post } = await startServer(t, { enablePromptTokensDetails: flag });
      client.script = (submission) => {
        submission.say('b', { finishReason: 'stop', numCachedTokens: 48 }, 1);
        submission.say('a', { finishReason: 'stop', numCachedTokens: 16 }, 0);
      };
      const whole = (await (await post(path, { ...body, n: 2 })).json()) as Answer;
      const stream_options = { include_usage: true };
      const fields = { ...body, n: 2, stream: true, stream_options };
      const events = (await readEvents(await post(path, fields))) as Answer[];
      return [whole, events.at(-2)!].map(({ usage }) => usage!.prompt_tokens_details);
    };
    t.same(await details(true), [{ cached_tokens: 16 }, { cached_tokens: 16 }]);
    t.same(await details(false), [undefined, undefined]);
  });

  t.test(`${path}: usage at the end of every stream, where the server is asked to`, async (t) => {
    const { post } = await startServer(t, { forceIncludeUsage: true });
    const events = (await readEvents(await post(path, { ...body, stream: true }))) as Answer[];
    t.ok(events.at(-2)!.usage);
    t.same(
      events.slice(0, -2).filter((event) => 'usage' in event),
      [],
    );
  });

  t.test(`${path}: the fingerprint is in a whole answer and a stream's last chunk`, async (t) => {
    const { client, post } = await startServer(t);
    client.script = (submission) => {
      submission.say('a', { finishReason: 'stop' }, 1);
      submission.say('b', {}, 0);
      submission.say('c', { finishReason: 'stop' }, 0);
    };
    const fields = { ...body, n: 2 };
    const whole = (await (await post(path, fields)).json()) as Answer;
    t.match(whole.system_fingerprint, fingerprint);
    for (const include_usage of [false, true]) {
      const asked = { ...fields, stream: true, stream_options: { include_usage } };
      const events = (await readEvents(await post(path, asked))) as Answer[];
      const chunks = events.slice(0, -1);
      t.same(
        chunks.map((chunk) => chunk.system_fingerprint),
        [...Array<undefined>(chunks.length - 1).fill(undefined), whole.system_fingerprint],
      );
    }
  });

  t.test(`${path}: prompt_logprobs 0 with stream, however they come`, async (t) => {
    const { client, post } = await startServer(t);
    client.script = (submission) => {
      submission.say('', { promptLogprobs: submission.promptLogprobs(1, 2) });
      submission.say('a', { promptLogprobs: submission.promptLogprobs(2) });
      submission.say('b', { finishReason: 'stop' });
    };
    const asked = { ...body, prompt_logprobs: 0 };
    const whole = (await (await post(path, asked)).json()) as Logprobs;
    const events = (await readEvents(await post(path, { ...asked, stream: true }))) as Logprobs[];
    const found = events.map(promptLogprobs).filter((value) => value !== undefined);
    t.equal(found.length, 1);
    t.same(found[0], promptLogprobs(whole));
    t.ok((found[0] as unknown[]).length > 1);
  });
}

interface Logprobs {
  readonly prompt_logprobs?: unknown;
  readonly choices?: readonly { readonly prompt_logprobs?: unknown }[];
}

function promptLogprobs(answer: Logprobs): unknown {
  return answer.prompt_logprobs ?? answer.choices?.[0]?.prompt_logprobs;
}
