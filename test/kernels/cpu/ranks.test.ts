// The demo model over several ranks in this process: the tokens of one rank, the same bits whatever
// the batch, and ranks that are late, silent or of another mind are found and named.
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { stepInputColumns } from '../../../common/wire/step.ts';
import type { StepResult } from '../../../kernels/backend.ts';
import { compareGreedy, readGolden } from '../golden.ts';
import { loadRanks, meetingPath, rankGroup, type RankOptions } from '../rank-group.ts';
import { StepDriver, type TestSampling } from '../step-driver.ts';
import {
  errorsOf,
  generate,
  golden,
  loadAllReduce,
  prompt,
  startRanks,
  testFaults,
} from './ranks-suite.ts';

t.setTimeout(600_000);

/** Logits of the demo model may differ so much between numbers of ranks (docs/tensor-parallel.md). */
const tolerance = 1e-3;

/** Logprobs of every prompt token: logits with the history forced. */
async function teacherForced(
  t: Test,
  numRanks: number,
  options: RankOptions = {},
): Promise<Float32Array> {
  const { driver } = await startRanks(t, numRanks, options);
  const tokens = [...prompt, ...golden[0]!.greedy_ids];
  const row = driver.add(0, tokens, { promptLogprobs: 5 });
  const { columns } = await driver.run([{ row, count: tokens.length }]);
  return Float32Array.from([...columns.promptLogprob, ...columns.promptTopLogprobs]);
}

t.test('teacher-forced logprobs stay within the tolerance of one rank', async (t) => {
  // More logit rows than buffers hold: the last ops run several times.
  const one = await teacherForced(t, 1, { maxNumLogits: 8 });
  for (const numRanks of [2, 4]) {
    const many = await teacherForced(t, numRanks, { maxNumLogits: 8 });
    t.equal(many.length, one.length);
    const error = many.reduce((max, x, i) => Math.max(max, Math.abs(x - one[i]!)), 0);
    t.ok(error < tolerance, `${numRanks} ranks are off by ${error}`);
    t.ok(error > 0, 'and did compute something else');
  }
  const reference = await teacherForced(t, 2, { device: 'reference', maxNumLogits: 8 });
  const error = reference.reduce((max, x, i) => Math.max(max, Math.abs(x - one[i]!)), 0);
  t.ok(error < tolerance, `the reference's two ranks are off by ${error}`);
});

t.test('greedy tokens are golden over two and four ranks', async (t) => {
  for (const numRanks of [2, 4]) {
    const { driver } = await startRanks(t, numRanks);
    for (const [i, row] of golden.slice(0, 4).entries()) {
      const ids = await generate(driver, driver.add(i, row.prompt_ids), row.greedy_ids.length);
      const { numEqual, isExcused } = compareGreedy(row, ids);
      t.ok(isExcused, `row ${i} of ${numRanks} ranks: ${numEqual} tokens`);
    }
  }
});

const models = process.env['VLLM_TS_TEST_MODELS'];
const skip = models === undefined && 'VLLM_TS_TEST_MODELS names no folder of models';

t.test('greedy tokens of SmolLM2 are golden over three ranks', { skip }, async (t) => {
  const folder = join(models!, 'smollm2-135m-instruct');
  const { backend } = await loadRanks(folder, 3);
  t.teardown(() => backend.close());
  const [row] = readGolden(join(folder, 'golden-f32-of-bf16.json'));
  const driver = new StepDriver(backend, 16, 256);
  const ids = await generate(driver, driver.add(0, row!.prompt_ids), 32);
  const wanted = { ...row!, greedy_ids: row!.greedy_ids.slice(0, 32) };
  const { numEqual, isExcused } = compareGreedy(wanted, ids);
  t.ok(isExcused, `${numEqual} tokens`);
});

/** What a rank tells the others differs with each: all logits, several candidates, one. */
const kinds: TestSampling[] = [
  { temperature: 0.8, topP: 0.9, seed: 7n, logprobs: 3 },
  { temperature: 0.9, topK: 40, topP: 0.95, seed: 8n, logprobs: 0 },
  { temperature: 1, seed: 9n, frequencyPenalty: 0.2 },
  { temperature: 0, repetitionPenalty: 1.2, logprobs: 20 },
  { temperature: 1.2, minP: 0.02, seed: 10n },
];

t.test('same tokens whatever batch, chunks, threads, shared prefix and preemption', async (t) => {
  for (const [numRanks, sampled] of [
    [2, kinds[0]!],
    [4, kinds[1]!],
  ] as const) {
    const long = [...prompt, ...golden[1]!.prompt_ids, ...golden[2]!.prompt_ids];
    const alone = await startRanks(t, numRanks);
    const expected = await generate(alone.driver, alone.driver.add(0, long, sampled), 40);

    const { driver } = await startRanks(t, numRanks, { numThreads: 3 });
    const chunked = await generate(driver, driver.add(1, long, sampled), 40, 7);
    t.same(chunked, expected, `${numRanks} ranks: chunks of 7, three threads`);

    const first = driver.add(2, long, sampled);
    const others = golden.slice(3, 8).map((row, i) => driver.add(3 + i, row.prompt_ids, kinds[i]));
    const all = [first, ...others];
    for (let i = 0; i < 20; i++)
      await driver.run(all.map((row) => ({ row, count: row.tokens.length - row.numComputed })));
    driver.preempt(first);
    await generate(driver, first, 40, 33);
    t.same(first.tokens.slice(long.length), expected, `${numRanks} ranks: in a batch, preempted`);

    const hit = driver.add(9, long, sampled);
    driver.share(hit, first, Math.floor(long.length / 16) - 1);
    t.same(await generate(driver, hit, 40), expected, `${numRanks} ranks: after a prefix hit`);
  }
});

t.test('steps may be sent ahead', async (t) => {
  const { backend, driver } = await startRanks(t, 2);
  const row = driver.add(0, prompt);
  const results: StepResult[] = [];
  const chunks = [20, prompt.length - 20].map((count) => ({ row, count }));
  // Both are in flight at once; the second does not need the first's result.
  const both = chunks.map((chunk) => {
    const running = driver.run([chunk]);
    row.numComputed += chunk.count;
    return running;
  });
  for (const running of both) results.push(await running);
  t.equal(backend.ranks.length, 2);
  t.same(
    results.map(({ columns }) => columns.tokenId[0]),
    [-1, golden[0]!.greedy_ids[0]],
  );
});

/** Columns of a step that does nothing. */
const emptyStep = new Int32Array(2 * Object.keys(stepInputColumns).length);

testFaults({}, /rank 2 did not come to the step's first op \(op 0 of step 1\) within 5 s/);

t.test('a rank that reads another token is named at that step', async (t) => {
  for (const [numRanks, odd] of [
    [2, 1],
    [4, 2],
  ] as const) {
    const { backend } = await startRanks(t, numRanks);
    const drivers = backend.ranks.map((rank) => new StepDriver(rank, 16, 256));
    const errors = errorsOf(backend.ranks);
    drivers.forEach((driver, rank) => {
      const tokens = prompt.map((id, i) => (rank === odd && i === 3 ? id + 1 : id));
      void driver
        .run([{ row: driver.add(0, tokens), count: prompt.length }])
        .catch(() => undefined);
    });
    for (const error of await errors)
      t.match(error, { rank: odd, message: /disagrees with the others at .* \(op 0 of step 0\)/ });
    // Who has not heard of it yet is told the same.
    t.throws(() => backend.ranks[0]!.submit(1, 0, new Uint8Array(0), emptyStep), {
      rank: odd,
      message: /has failed .*: rank \d disagrees with the others/,
    });
  }
});

t.test('ranks of different programs do not meet', async (t) => {
  const path = meetingPath();
  await loadAllReduce(t, rankGroup(path, 0, 2));
  await t.rejects(loadAllReduce(t, rankGroup(path, 1, 2), 6400), {
    message: /expected \d+: the ranks run different programs/,
  });
});
