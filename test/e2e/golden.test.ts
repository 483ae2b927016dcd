// The demo model served end to end says what transformers said, token for token, up to near ties.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { CompletionStream, post } from './client.ts';
import { limitMs, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

interface GoldenRow {
  readonly user: string;
  /** What the chat template makes of it. */
  readonly prompt: string;
  readonly prompt_ids: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly text: string;
  /** Between the best and the second-best logit at each step. */
  readonly gaps: readonly number[];
}

const readRows = (file: string | URL) =>
  (JSON.parse(readFileSync(file, 'utf8')) as { rows: readonly GoldenRow[] }).rows;

const rows = readRows(new URL('../../../test/fixtures/demo/golden.json', import.meta.url));

/** A smaller gap than this is a near tie: another order of summation may decide it otherwise. */
const nearTie = 0.02;

function sameTokens(t: Test, ids: readonly number[], row: GoldenRow): void {
  const at = ids.findIndex((id, i) => id !== row.greedy_ids[i]);
  if (at >= 0 && row.gaps[at]! < nearTie) t.comment(`near tie at step ${at}`);
  else t.equal(at, -1, `differs at step ${at} of ${ids.length}`);
}

async function isGolden(
  t: Test,
  argv: readonly string[],
  rows: readonly GoldenRow[],
  maxTokens: number,
) {
  const server = await startServer(t, argv);
  await Promise.all(
    rows.map(async (row) => {
      const stream = await CompletionStream.open(server, {
        prompt: row.prompt_ids,
        max_tokens: maxTokens,
        temperature: 0,
        return_token_ids: true,
      });
      await stream.ended;
      t.ok(stream.isDone);
      t.equal(stream.tokenIds.length, Math.min(maxTokens, row.greedy_ids.length));
      sameTokens(t, stream.tokenIds, row);
    }),
  );
  return server;
}

t.test('the reference backend serves golden tokens', async (t) => {
  await isGolden(t, ['--device', 'reference'], rows.slice(0, 1), 16);
});

t.test('the cpu backend serves golden tokens, text and chat', async (t) => {
  const server = await isGolden(t, ['--device', 'cpu'], rows, 128);
  const row = rows[0]!;
  const { status, body } = await post(server, '/v1/chat/completions', {
    messages: [{ role: 'user', content: row.user }],
    max_tokens: 128,
    temperature: 0,
  });
  t.equal(status, 200);
  const { choices } = body as { choices: readonly { message: { content: string } }[] };
  const completion = await post(server, '/v1/completions', {
    prompt: row.prompt,
    allow_special_tokens: true,
    max_tokens: 1,
    return_token_ids: true,
  });
  t.match(completion.body, { choices: [{ prompt_token_ids: row.prompt_ids }] }, 'asked for');
  if (row.gaps.every((gap) => gap >= nearTie)) t.equal(choices[0]!.message.content, row.text);
  else t.ok(row.text.startsWith(choices[0]!.message.content.slice(0, 20)));
});

t.test('a bad word is banned at the start and after a space', async (t) => {
  const server = await startServer(t);
  const say = async (prompt: string, fields: object = {}) => {
    const body = { prompt, max_tokens: 8, temperature: 0, ...fields };
    const answer = await post(server, '/v1/completions', body);
    return (answer.body as { choices: readonly { text: string }[] }).choices[0]!.text;
  };
  // " little" is one token, "little" is two.
  t.match(await say('Once upon a time, there was a'), /^ little/);
  t.notMatch(await say('Once upon a time, there was a', { bad_words: ['little'] }), /little/);
  t.notMatch(await say('Once upon a time, there was a ', { bad_words: ['little'] }), /^little/);
});

const models = process.env['VLLM_TS_TEST_MODELS'];
const smollm2 = models === undefined ? null : join(models, 'smollm2-135m-instruct');
const skip =
  smollm2 !== null && existsSync(smollm2) ? false : 'VLLM_TS_TEST_MODELS names no SmolLM2 folder';

t.test('SmolLM2 with its real weights serves golden tokens', { skip }, async (t) => {
  const golden = readRows(join(smollm2!, 'golden-f32-of-bf16.json'));
  await isGolden(t, [smollm2!], golden, 64);
});
