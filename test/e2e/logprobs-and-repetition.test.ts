// Logprobs of named ids, logprobs of many alternatives, and the end by repetition, through all
// processes with real numbers: what one request says of a token another must say too.
import t from 'tap';
import { post } from './client.ts';
import { limitMs, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

interface Completion {
  readonly choices: readonly {
    readonly text: string;
    readonly finish_reason: string;
    readonly token_ids: readonly number[];
    readonly logprobs: {
      readonly token_logprobs: readonly number[];
      readonly top_logprobs: readonly Readonly<Record<string, number>>[];
    };
  }[];
}

const prompt = { prompt: 'Once upon a time', temperature: 0, return_token_ids: true };

t.test('named ids have the logprobs that a list of all would give them', async (t) => {
  const server = await startServer(t, ['--max-logprobs', '-1', '--max-num-batched-tokens', '1024']);
  const ask = async (fields: object) => {
    const body = { ...prompt, max_tokens: 4, return_tokens_as_token_ids: true, ...fields };
    const { status, body: answer } = await post(server, '/v1/completions', body);
    t.equal(status, 200);
    return (answer as Completion).choices[0]!;
  };
  const ids = [5, 8000, 300];
  const all = await ask({ logprobs: 8192 });
  const named = await ask({ logprobs: 1, logprob_token_ids: ids });
  t.same(named.token_ids, all.token_ids);
  for (const [i, top] of named.logprobs.top_logprobs.entries()) {
    const every = all.logprobs.top_logprobs[i]!;
    t.equal(Object.keys(every).length, 8192);
    const sum = Object.values(every).reduce((total, logprob) => total + Math.exp(logprob), 0);
    t.ok(Math.abs(sum - 1) < 1e-4, `probabilities of position ${i} sum to ${sum}`);
    const names = [named.token_ids[i]!, ...ids].map((id) => `token_id:${id}`);
    t.same(Object.keys(top).sort(), [...new Set(names)].sort());
    for (const name of names) t.equal(top[name], every[name], `${name} at position ${i}`);
  }
});

t.test('an output that repeats itself ends, streamed or not', async (t) => {
  const server = await startServer(t);
  const body = {
    ...prompt,
    max_tokens: 50,
    logit_bias: { 300: 100 },
    repetition_detection: { max_pattern_size: 2, min_count: 4 },
  };
  const { body: answer } = await post(server, '/v1/completions', body);
  const { finish_reason, token_ids } = (answer as Completion).choices[0]!;
  t.same(
    { finish_reason, token_ids },
    { finish_reason: 'repetition', token_ids: [300, 300, 300, 300] },
  );
  const { body: events } = await post(server, '/v1/completions', { ...body, stream: true });
  t.match(String(events), /"finish_reason":"repetition"/);
  t.match(String(events), /data: \[DONE\]\n\n$/);
  const { body: longer } = await post(server, '/v1/completions', { ...body, min_tokens: 9 });
  t.equal((longer as Completion).choices[0]!.token_ids.length, 9);
});
