// The reference backend on the demo model: golden tokens and logprobs; the same numbers alone, in a
// batch, in chunks, after a preemption and with a prefix hit; failures that name what is wrong.
import t, { type Test } from 'tap';
import { KernelError } from '../../../common/errors.ts';
import { rowFlags, stepFlags } from '../../../common/wire/step.ts';
import { ReferenceBackend } from '../../../kernels/reference/reference-backend.ts';
import { demoFolder, loadFolder, type TestLoad } from '../demo-backend.ts';
import { compareGreedy, readGolden } from '../golden.ts';
import { emptyLists, pack, StepDriver, type TestRow, type TestSampling } from '../step-driver.ts';

const golden = readGolden('test/fixtures/demo/golden.json');
const blockSize = 16;
// Float64 in one thread, on a machine that may be busy.
t.setTimeout(300_000);

async function driver(t: Test, options: TestLoad = {}): Promise<StepDriver> {
  const backend = new ReferenceBackend();
  await loadFolder(backend, demoFolder, { blockSize, numBlocks: 200, ...options });
  t.teardown(() => backend.close());
  return new StepDriver(backend, blockSize, options.numBlocks ?? 200);
}

/** Runs one row alone to `numTokens` generated ones; returns ids and their logprobs. */
async function generate(d: StepDriver, row: TestRow, numTokens: number, chunk = Infinity) {
  const logprobs: number[] = [];
  while (row.tokens.length < row.numPromptTokens + numTokens) {
    const count = Math.min(chunk, row.tokens.length - row.numComputed);
    const { columns } = await d.run([{ row, count }]);
    logprobs.push(...columns.logprob);
  }
  return { ids: row.tokens.slice(row.numPromptTokens), logprobs };
}

t.test('golden tokens and logprobs', async (t) => {
  const d = await driver(t);
  for (const expected of golden.slice(0, 4)) {
    const row = d.add(0, expected.prompt_ids, { logprobs: 10 });
    const first = await d.run([{ row, count: row.tokens.length }]);
    const { columns } = first;
    expected.top10_last_prompt_position.forEach(([id, logprob], i) => {
      t.equal(columns.topIds[i], id);
      t.ok(Math.abs(columns.topLogprobs[i]! - logprob) < 1e-4);
    });
    const numTokens = Math.min(40, expected.greedy_ids.length);
    const { ids, logprobs } = await generate(d, row, numTokens);
    const { numEqual, isExcused } = compareGreedy(expected, ids);
    t.ok(isExcused || numEqual >= numTokens, `${numEqual} tokens of ${expected.user}`);
    [columns.logprob[0]!, ...logprobs].slice(0, numEqual).forEach((logprob, i) => {
      if (Math.abs(logprob - expected.greedy_logprobs[i]!) > 1e-3) t.fail(`logprob of token ${i}`);
    });
    d.preempt(row);
  }
});

const sampled: TestSampling = { temperature: 0.9, topP: 0.95, seed: 77n << 32n, logprobs: 2 };

t.test('the same bits alone, chunked, preempted, batched and with a prefix hit', async (t) => {
  const d = await driver(t);
  const prompt = golden[7]!.prompt_ids.slice(0, 70);
  const alone = await generate(d, d.add(0, prompt, sampled), 8);

  const chunked = d.add(1, prompt, sampled);
  t.strictSame(await generate(d, chunked, 8, 7), alone, 'chunks of 7');

  const preempted = d.add(2, prompt, sampled);
  const before = await generate(d, preempted, 3);
  d.preempt(preempted);
  const after = await generate(d, preempted, 8, 33);
  t.strictSame(after.ids, alone.ids, 'preempted');
  t.strictSame([...before.logprobs, ...after.logprobs], alone.logprobs);

  const hit = d.add(3, prompt, sampled);
  d.share(hit, chunked, 4);
  t.strictSame(await generate(d, hit, 8), alone, 'prefix hit');

  const rows = golden.slice(0, 6).map((row, i) => d.add(4 + i, row.prompt_ids, { temperature: 1 }));
  const batched = d.add(20, prompt, sampled);
  const logprobs: number[] = [];
  for (let step = 0; step < 8; step++) {
    const all = [...rows.slice(0, 3), batched, ...rows.slice(3)];
    const { columns } = await d.run(
      all.map((row) => ({ row, count: row.tokens.length - row.numComputed })),
    );
    logprobs.push(...columns.logprob);
  }
  t.strictSame(batched.tokens.slice(prompt.length), alone.ids, 'batched');
  t.strictSame(logprobs, alone.logprobs);
});

t.test(
  'prompt logprobs: all of them, in passes and in chunks, equal those of sampling',
  async (t) => {
    const d = await driver(t, { maxNumLogits: 4 });
    const prompt = golden[0]!.prompt_ids.slice(0, 21);
    const whole = d.add(0, prompt, { promptLogprobs: 2, logprobs: 0 });
    const { columns } = await d.run([{ row: whole, count: 21 }]);
    t.strictSame([...columns.promptTopCount], new Array(20).fill(2));
    t.strictSame(
      [...columns.promptLogprobPosition],
      Array.from({ length: 20 }, (_, i) => i + 1),
    );
    t.equal(columns.promptTopIds.length, 40);
    t.strictSame([...columns.topCount], [0]);
    t.equal(columns.topIds.length, 0);

    const chunked = d.add(1, prompt, { promptLogprobs: 2, logprobs: 0 });
    const parts: number[] = [];
    for (const count of [8, 8, 5]) {
      const part = await d.run([{ row: chunked, count }]);
      parts.push(...part.columns.promptLogprob);
    }
    t.strictSame(parts, [...columns.promptLogprob]);

    // What the model says of prompt token 6 is what it says when only the first six are its prompt.
    const forced = d.add(2, prompt.slice(0, 6), { logprobs: 0, allowedIds: [prompt[6]!] });
    const forcedStep = await d.run([{ row: forced, count: 6 }]);
    t.equal(forcedStep.columns.logprob[0], columns.promptLogprob[5]);
    t.equal(forcedStep.columns.logprobRank[0], columns.promptLogprobRank[5]);
  },
);

t.test('a layout with gate and up interleaved gives the same tokens', async (t) => {
  const plain = await driver(t);
  const interleaved = await driver(t, { interleave: 8 });
  const prompt = golden[2]!.prompt_ids;
  const expected = await generate(plain, plain.add(0, prompt, { logprobs: 0 }), 6);
  const actual = await generate(interleaved, interleaved.add(0, prompt, { logprobs: 0 }), 6);
  t.strictSame(actual, expected);
});

t.test('bf16 activations and cache stay within 0.05 of the golden logprobs', async (t) => {
  const d = await driver(t, { actDtype: 'bf16', kvDtype: 'bf16' });
  const expected = golden[1]!;
  const row = d.add(0, expected.prompt_ids, { logprobs: 0 });
  const { columns } = await d.run([{ row, count: row.tokens.length }]);
  t.equal(row.tokens.at(-1), expected.greedy_ids[0]);
  const error = Math.abs(columns.logprob[0]! - expected.greedy_logprobs[0]!);
  t.ok(error < 0.05 && error > 1e-6, `error ${error}: rounded, but not by much`);
});

t.test('steps in flight run in order; the hash changes with the tokens', async (t) => {
  const d = await driver(t);
  const prompt = golden[2]!.prompt_ids;
  const row = d.add(0, prompt, { temperature: 1, seed: 5n });
  const first = await d.run([{ row, count: prompt.length }]);
  const other = d.add(1, prompt, { temperature: 1, seed: 6n });
  const second = await d.run([{ row: other, count: prompt.length }]);
  t.not(first.hash, second.hash);
  t.ok(second.startUs >= first.endUs && second.endUs >= second.startUs);
  t.equal(d.backend.position().step, second.step);
});

t.test('a row with NaN ends alone, and its later steps do nothing', async (t) => {
  const d = await driver(t);
  const well = d.add(0, golden[0]!.prompt_ids);
  const ill = d.add(1, golden[0]!.prompt_ids);
  // Blocks that nobody wrote hold NaN (debugSync): as if 16 tokens had been computed.
  await d.run([{ row: well, count: well.tokens.length }]);
  ill.numComputed = blockSize;
  const { columns } = await d.run([
    { row: ill, count: ill.tokens.length - blockSize },
    { row: well, count: 1 },
  ]);
  t.strictSame([...columns.rowFlags], [rowFlags.nan, 0]);
  t.equal(columns.tokenId[0], -1);
  t.ok(columns.tokenId[1]! >= 0);
  // The engine has not yet heard of it and goes on.
  ill.tokens.push(0);
  const next = await d.run([
    { row: ill, count: 1 },
    { row: well, count: 1 },
  ]);
  t.strictSame([...next.columns.rowFlags], [0, 0]);
  t.equal(next.columns.tokenId[0], -1);
  t.ok(next.columns.tokenId[1]! >= 0);
  // The row is free again for another request.
  const fresh = d.add(1, golden[0]!.prompt_ids);
  const last = await d.run([{ row: fresh, count: fresh.tokens.length }]);
  t.ok(last.columns.tokenId[0]! >= 0);
});

t.test('steps that contradict the row table are KernelErrors with their step', async (t) => {
  const bad: [string, (row: TestRow) => void, RegExp][] = [
    ['a chunk beyond what is known', (row) => (row.numComputed = 30), /count of row 0/],
    ['an id outside the vocabulary', (row) => (row.tokens[3] = 8192), /newTokenIds 8192/],
    ['a block outside the pool', (row) => (row.blocks[0] = 200), /blockId 200/],
    ['no block', (row) => (row.blocks[0] = 0), /no block for position 0/],
  ];
  for (const [name, spoil, message] of bad) {
    const d = await driver(t);
    const row = d.add(0, golden[0]!.prompt_ids);
    row.blocks.push(1, 2, 3);
    spoil(row);
    const error: unknown = await d.run([{ row, count: 25 }]).catch((reason: unknown) => reason);
    t.type(error, KernelError, name);
    t.match((error as KernelError).message, message);
    t.equal((error as KernelError).step, 0);
  }
});

t.test('a row that is filled anew has none of the blocks it had', async (t) => {
  const d = await driver(t);
  const first = d.add(0, golden[0]!.prompt_ids);
  await d.run([{ row: first, count: first.tokens.length }]);
  const second = d.add(0, golden[0]!.prompt_ids);
  second.blocks = [1, 2];
  second.numBlocksSent = 2;
  await t.rejects(d.run([{ row: second, count: 25 }]), /no block for position 0/);
});

t.test('a bad table is refused at once', async (t) => {
  const d = await driver(t);
  const { body, table } = pack({ ...emptyLists(), row: [0], flags: [stepFlags.sample] });
  for (const [index, value] of [
    [0, -8],
    [0, 4],
    [1, 1000],
    [table.length - 1, 2 ** 30],
  ] as const) {
    const spoiled = table.slice();
    spoiled[index] = value;
    t.throws(() => d.backend.submit(0, 0, body, spoiled), KernelError);
  }
  t.throws(() => d.backend.submit(0, 0, body, table.slice(1)), KernelError);
});
