// The demo model over several ranks in this process: the tokens of one rank, the same bits whatever
// the batch, and ranks that are late, silent or of another mind are found and named.
import { join } from 'node:path';
import t, { type Test } from 'tap';

import type { StepResult } from '../../../kernels/backend.ts';
import { CpuBackend } from '../../../kernels/cpu-backend.ts';
import type { Op, Program } from '../../../kernels/program.ts';
import { demoFolder } from '../demo-backend.ts';
import { compareGreedy, readGolden } from '../golden.ts';
import { loadRanks, meetingPath, rankGroup, type RankOptions } from '../rank-group.ts';
import { StepDriver, type TestRow, type TestSampling } from '../step-driver.ts';
import { arg, makePart, makeProgram, randomValues } from './one-op.ts';
import { defaultLoad, Harness } from './harness.ts';

t.setTimeout(600_000);
const golden = readGolden('test/fixtures/demo/golden.json');
const prompt = golden[0]!.prompt_ids;

/** Logits of the demo model may differ so much between numbers of ranks (docs/tensor-parallel.md). */
const tolerance = 1e-3;

async function start(t: Test, numRanks: number, options: RankOptions = {}) {
  const { backend, programs } = await loadRanks(demoFolder, numRanks, options);
  t.teardown(() => backend.close());
  return { backend, programs, driver: new StepDriver(backend, 16, 256) };
}

/** Prefill in chunks, then one token a step. */
async function generate(driver: StepDriver, row: TestRow, count: number, chunk = 512) {
  while (row.tokens.length < row.numPromptTokens + count) {
    const pending = row.tokens.length - row.numComputed;
    await driver.run([{ row, count: Math.min(chunk, pending) }]);
  }
  return row.tokens.slice(row.numPromptTokens);
}

/** Logprobs of every prompt token: logits with the history forced. */
async function teacherForced(
  t: Test,
  numRanks: number,
  options: RankOptions = {},
): Promise<Float32Array> {
  const { driver } = await start(t, numRanks, options);
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
    const { driver } = await start(t, numRanks);
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

const sampled: TestSampling = { temperature: 0.8, topP: 0.9, seed: 7n, logprobs: 3 };

t.test('same tokens whatever batch, chunks, threads, shared prefix and preemption', async (t) => {
  for (const numRanks of [2, 4]) {
    const long = [...prompt, ...golden[1]!.prompt_ids, ...golden[2]!.prompt_ids];
    const alone = await start(t, numRanks);
    const expected = await generate(alone.driver, alone.driver.add(0, long, sampled), 40);

    const { driver } = await start(t, numRanks, { numThreads: 3 });
    const chunked = await generate(driver, driver.add(1, long, sampled), 40, 7);
    t.same(chunked, expected, `${numRanks} ranks: chunks of 7, three threads`);

    const first = driver.add(2, long, sampled);
    const others = golden.slice(3, 8).map((row, i) => driver.add(3 + i, row.prompt_ids, sampled));
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
  const { backend, driver } = await start(t, 2);
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

/** Ops over ranks in this process: x of each rank in buffer 1; buffers 0 and 2 of each rank. */
async function runCollective(
  ops: readonly Op[],
  n: number,
  inputs: readonly Float32Array[],
  more: { bias?: Float32Array; residual?: Float32Array; norm?: Float32Array } = {},
): Promise<[Float32Array, Float32Array][]> {
  const path = meetingPath();
  const { bias, residual, norm } = more;
  const numRows = inputs[0]!.length / n;
  const weights = [bias, norm].flatMap((values) => (values ? [{ shape: [n], values }] : []));
  const buffers = [{ columns: n }, { columns: n }, { columns: n }];
  const program: Program = makeProgram({ ops, buffers, weights, rows: [] }, numRows);
  const harnesses = await Promise.all(
    inputs.map((_, rank) =>
      Harness.load({
        ...defaultLoad,
        numThreads: 1 + rank,
        program,
        weights: weights.map((weight) => [makePart(weight)]),
        ...rankGroup(path, rank, inputs.length),
      }),
    ),
  );
  try {
    const tokens = Array.from({ length: numRows }, (_, i) => i);
    await Promise.all(
      harnesses.map((harness, rank) => {
        harness.backend.writeBuffer(1, inputs[rank]!);
        if (residual) harness.backend.writeBuffer(2, residual);
        const rows = tokens.map((row) => ({ row, tokens: [1], blocks: [1 + row] }));
        return harness.step(
          rows,
          tokens.map((row) => ({ row, start: 0, count: 1, flags: 0 })),
        );
      }),
    );
    const read = ({ backend }: Harness, index: number) =>
      new Float32Array(backend.readBuffer(index));
    return harnesses.map((harness) => [read(harness, 0), read(harness, 2)]);
  } finally {
    await Promise.all(harnesses.map((harness) => harness.close()));
  }
}

t.test('allReduce adds in rank order in f32, then bias and residual, on every rank', async (t) => {
  const [numRows, n] = [5, 300];
  for (const numRanks of [2, 3, 4]) {
    // Of different sizes, so that the order of additions shows.
    const inputs = Array.from({ length: numRanks }, (_, rank) =>
      randomValues(numRows * n, rank).map((x) => x * 10 ** (3 - 2 * rank)),
    );
    const bias = randomValues(n, 90);
    const residual = randomValues(numRows * n, 91);
    const sum = (extra: readonly ((i: number) => number)[]) =>
      Float32Array.from({ length: numRows * n }, (_, i) => {
        let value = inputs[0]![i]!;
        for (const input of inputs.slice(1)) value = Math.fround(value + input[i]!);
        for (const add of extra) value = Math.fround(value + add(i));
        return value;
      });
    const args = { out: arg.buffer(0), x: arg.buffer(1) };
    const plain = await runCollective([{ op: 'allReduce', args, attrs: {} }], n, inputs);
    for (const [out] of plain) t.same(out, sum([]));
    const more = { ...args, bias: arg.weight(0), residual: arg.buffer(2) };
    const full = await runCollective([{ op: 'allReduce', args: more, attrs: {} }], n, inputs, {
      bias,
      residual,
    });
    for (const [out] of full) t.same(out, sum([(i) => bias[i % n]!, (i) => residual[i]!]));
  }
});

t.test('allReduceResidualNorm has the bits of allReduce, then rmsNorm', async (t) => {
  const n = 300;
  // Fewer rows than threads, and more.
  for (const numRows of [1, 5]) {
    const inputs = [0, 1, 2].map((rank) => randomValues(numRows * n, rank));
    const [bias, residual, weight] = [90, 91, 92].map((seed) => randomValues(n * numRows, seed));
    const more = { bias: bias!.subarray(0, n), residual: residual!, norm: weight!.subarray(0, n) };
    const one = await runCollective(
      [
        {
          op: 'allReduceResidualNorm',
          args: {
            out: arg.buffer(0),
            sum: arg.buffer(2),
            x: arg.buffer(1),
            weight: arg.weight(1),
            bias: arg.weight(0),
            residual: arg.buffer(2),
          },
          attrs: { eps: 1e-5 },
        },
      ],
      n,
      inputs,
      more,
    );
    const two = await runCollective(
      [
        {
          op: 'allReduce',
          args: {
            out: arg.buffer(2),
            x: arg.buffer(1),
            bias: arg.weight(0),
            residual: arg.buffer(2),
          },
          attrs: {},
        },
        {
          op: 'rmsNorm',
          args: { out: arg.buffer(0), x: arg.buffer(2), weight: arg.weight(1) },
          attrs: { eps: 1e-5 },
        },
      ],
      n,
      inputs,
      more,
    );
    t.same(one, two);
    t.ok(one.every((buffers) => buffers.every((buffer) => buffer.some((x) => x !== 0))));
  }
});

/** The errors of all ranks, in rank order. */
function errorsOf(backend: { ranks: readonly { onError: ((error: Error) => void) | null }[] }) {
  return Promise.all(
    backend.ranks.map((rank) => new Promise<Error>((resolve) => (rank.onError = resolve))),
  );
}

t.test('a rank that does not come is named, with step and op, and nobody waits on', async (t) => {
  const { backend, driver } = await start(t, 4, { timeoutMs: 300 });
  const row = driver.add(0, prompt);
  await driver.run([{ row, count: prompt.length }]);
  // Rank 2 never gets the next step.
  backend.ranks[2]!.submit = () => undefined;
  const errors = errorsOf({ ranks: backend.ranks.filter((_, rank) => rank !== 2) });
  void driver.run([{ row, count: 1 }]).catch(() => undefined);
  for (const error of await errors) {
    t.match(error, { name: 'KernelError', rank: 2, step: 1 });
    t.match(
      error.message,
      /rank 2 did not come to the step's first op \(op 0 of step 1\) within 0.3 s/,
    );
  }
});

t.test('a rank that samples other tokens is named at the next step', async (t) => {
  for (const [numRanks, odd] of [
    [2, 1],
    [4, 0],
  ] as const) {
    const { backend } = await start(t, numRanks);
    const drivers = backend.ranks.map((rank) => new StepDriver(rank, 16, 256));
    const rows = drivers.map((driver, rank) =>
      driver.add(0, prompt, { temperature: 5, topK: 50, seed: rank === odd ? 1n : 0n }),
    );
    await Promise.all(
      drivers.map((driver, i) => driver.run([{ row: rows[i]!, count: prompt.length }])),
    );
    t.not(rows[0]!.tokens.at(-1), rows[1]!.tokens.at(-1), 'another seed, another token');
    const errors = errorsOf(backend);
    for (const [i, driver] of drivers.entries())
      void driver.run([{ row: rows[i]!, count: 1 }]).catch(() => undefined);
    for (const error of await errors)
      t.match(error, { rank: odd, message: /disagrees with the others at .* of step 1/ });
  }
});

t.test('a rank that ends lets the others go at once', async (t) => {
  const { backend, driver } = await start(t, 2, { timeoutMs: 600_000 });
  const row = driver.add(0, prompt);
  await driver.run([{ row, count: prompt.length }]);
  backend.ranks[1]!.submit = () => undefined;
  const errors = errorsOf({ ranks: backend.ranks.slice(0, 1) });
  void driver.run([{ row, count: 1 }]).catch(() => undefined);
  await backend.ranks[1]!.close();
  t.match((await errors)[0], { rank: 1, message: 'rank 1 has ended' });
});

t.test('ranks of different programs do not meet', async (t) => {
  const path = meetingPath();
  const load = (rank: number, columns: number) => {
    const op: Op = { op: 'allReduce', args: { out: arg.buffer(0), x: arg.buffer(1) }, attrs: {} };
    const program = makeProgram({ ops: [op], buffers: [{ columns }, { columns }], rows: [] }, 4);
    const backend = new CpuBackend();
    t.teardown(() => backend.close());
    return backend.load({ ...defaultLoad, program, weights: [], ...rankGroup(path, rank, 2) });
  };
  await load(0, 64);
  await t.rejects(load(1, 6400), /expected \d+: the ranks run different programs/);
});
