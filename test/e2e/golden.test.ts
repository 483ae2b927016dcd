// The demo model served end to end says what transformers said, token for token, up to near ties.
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { CompletionStream, post } from './client.ts';
import { limitMs, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

interface GoldenRow {
  readonly user: string;
  readonly prompt_ids: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly text: string;
  /** Between the best and the second-best logit at each step. */
  readonly gaps: readonly number[];
}

const file = new URL('../../../test/fixtures/demo/golden.json', import.meta.url);
const { rows } = JSON.parse(readFileSync(file, 'utf8')) as { rows: readonly GoldenRow[] };

/** A smaller gap than this is a near tie: another order of summation may decide it otherwise. */
const nearTie = 0.02;

function sameTokens(t: Test, ids: readonly number[], row: GoldenRow): void {
  const at = ids.findIndex((id, i) => id !== row.greedy_ids[i]);
  if (at >= 0 && row.gaps[at]! < nearTie) t.comment(`near tie at step ${at}`);
  else t.equal(at, -1, `differs at step ${at} of ${ids.length}`);
}

async function isGolden(t: Test, device: string, numRows: number, maxTokens: number) {
  const server = await startServer(t, ['--device', device]);
  await Promise.all(
    rows.slice(0, numRows).map(async (row) => {
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
  await isGolden(t, 'reference', 1, 16);
});

t.test('the cpu backend serves golden tokens, text and chat', async (t) => {
  const server = await isGolden(t, 'cpu', rows.length, 128);
  const row = rows[0]!;
  const { status, body } = await post(server, '/v1/chat/completions', {
    messages: [{ role: 'user', content: row.user }],
    max_tokens: 128,
    temperature: 0,
  });
  t.equal(status, 200);
  const { choices } = body as { choices: readonly { message: { content: string } }[] };
  if (row.gaps.every((gap) => gap >= nearTie)) t.equal(choices[0]!.message.content, row.text);
  else t.ok(row.text.startsWith(choices[0]!.message.content.slice(0, 20)));
});
