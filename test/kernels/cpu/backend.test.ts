// The backend's face: bad steps, steps in flight, prompt logprobs, position, memory, close.
import t, { type Test } from 'tap';
import { KernelError } from '../../../common/errors.ts';
import { stepFlags, type StepInputColumns } from '../../../common/wire/step.ts';
import { CpuBackend } from '../../../kernels/cpu-backend.ts';
import { loadFolder } from '../demo-backend.ts';
import { badColumns, badSteps, row, scheduled } from './bad-steps.ts';
import {
  blocksFor,
  defaultLoad,
  Harness,
  loadModel,
  packStep,
  stepColumns,
  type NewRow,
} from './harness.ts';
import { arg, makeProgram } from './one-op.ts';

const sampleOnly = makeProgram(
  {
    ops: [{ op: 'sample', args: { logits: arg.buffer(0) }, attrs: {} }],
    buffers: [{ columns: 100, logits: true }],
    rows: [],
    vocabSize: 100,
    kv: { numLayers: 1, numKvHeads: 1, headDim: 16, dtype: 'f32' },
  },
  64,
);

const load = (extra: Partial<typeof defaultLoad> = {}) =>
  Harness.load({ ...defaultLoad, ...extra, program: sampleOnly, weights: [] });

async function rejects(t: Test, message: RegExp, columns: StepInputColumns): Promise<void> {
  const model = await load();
  await t.rejects(model.submit(columns), { name: 'KernelError', step: 0, message });
  // Nothing more is taken after a failure.
  t.throws(() => void model.submit(columns), { name: 'KernelError', message: /has failed/ });
  await model.close();
}

t.test('a bad value in a step is a KernelError that names its column', async (t) => {
  for (const [message, change] of badSteps) await rejects(t, message, badColumns(change));
  const twice = [...scheduled, ...scheduled];
  await rejects(t, /column row: row 1 twice/, stepColumns([row], twice));
});

t.test('the largest row and step are taken, and no larger one', async (t) => {
  const ops = [{ op: 'sample', args: { logits: arg.buffer(0) }, attrs: {} }] as const;
  const run = { ops, buffers: [{ columns: 100, logits: true }], rows: [], vocabSize: 100 } as const;
  const kv = { numLayers: 1, numKvHeads: 1, headDim: 16, dtype: 'f32' } as const;
  const program = makeProgram({ ...run, kv }, 512);
  const model = await Harness.load({ ...defaultLoad, program, weights: [] });
  const tokens = Array.from({ length: 512 }, (_, i) => 99 - (i % 100));
  const params = { temperature: 0, logprobs: 20, logprobTokenIds: Array<number>(128).fill(99) };
  const last = { row: 39, tokens, params, blocks: blocksFor(512, 32) };
  const { columns } = await model.step(
    [last],
    [{ row: 39, start: 0, count: 512, flags: stepFlags.sample }],
  );
  t.same([...columns.tokenId], [0]);
  // With its 512th token a row is at its end.
  const almost = { row: 0, tokens: tokens.slice(1), blocks: blocksFor(511) };
  const ids: number[] = [];
  for (const [start, count] of [
    [0, 511],
    [511, 1],
  ] as const) {
    const step = [{ row: 0, start, count, flags: stepFlags.sample }];
    ids.push((await model.step(start === 0 ? [almost] : [], step)).columns.tokenId[0]!);
  }
  t.ok(ids[0]! >= 0);
  t.equal(ids[1], -1);
  await model.close();
  const half = { tokens: tokens.slice(0, 33), blocks: blocksFor(33) };
  const rows = [0, 1].map((row) => ({ row, ...half }));
  const halves = rows.map(({ row }) => ({ row, start: 0, count: 33, flags: 0 }));
  await rejects(t, /column count: more than 64 tokens/, stepColumns(rows, halves));
});

t.test('a step of other than its number of tokens', async (t) => {
  const model = await load();
  const failed = new Promise<Error>((resolve) => (model.backend.onError = resolve));
  const { body, table } = packStep(stepColumns([row], scheduled));
  model.backend.submit(0, 5, body, table);
  t.match(await failed, { message: /numTokens is 5, column count says 4/ });
  await model.close();
});

t.test('a row that is filled anew has none of the blocks that it had', async (t) => {
  const model = await load();
  await model.step([row], scheduled);
  const again = model.step([{ ...row, blocks: [] }], scheduled);
  await t.rejects(again, { message: /column blockId: row 1 has no block 0/ });
  await model.close();
});

t.test('prompt tokens are judged where the row wants it and the step says so', async (t) => {
  const model = await load();
  t.teardown(() => model.close());
  const judged = async (flags: number, promptLogprobs: number | null) => {
    const wanted = { ...row, params: { promptLogprobs } };
    const { columns } = await model.step([wanted], [{ ...scheduled[0]!, flags }]);
    return [...columns.promptLogprobPosition];
  };
  const { promptLogprobs, sample } = stepFlags;
  t.same(await judged(promptLogprobs | sample, 0), [1, 2, 3], 'without alternatives');
  t.same(await judged(promptLogprobs, 2), [1, 2, 3]);
  t.same(await judged(sample, 2), []);
  t.same(await judged(promptLogprobs | sample, null), []);
  // Of equal logits the least ids are the best.
  const two = [row, { ...row, row: 2, params: { promptLogprobs: 2 } }];
  const steps = two.map(({ row }) => ({ row, start: 0, count: 4, flags: promptLogprobs }));
  const { columns } = await model.step(two, steps);
  t.same([...columns.promptLogprobIndex], [1, 1, 1]);
  t.same([...columns.promptTopCount], [2, 2, 2]);
  t.same([...columns.promptTopIds], [0, 1, 0, 1, 0, 1]);
  const logprobs = [...columns.promptLogprob, ...columns.promptTopLogprobs];
  t.equal(logprobs.length, 9);
  for (const logprob of logprobs) t.ok(Math.abs(logprob + Math.log(100)) < 1e-6);
});

t.test('a column table that leaves the body throws at submit', async (t) => {
  const model = await load();
  t.teardown(() => model.close());
  const { body, table } = packStep(stepColumns([row], scheduled));
  const submit = (change: (table: Int32Array) => Int32Array) => () =>
    model.backend.submit(0, 4, body, change(table.slice()));
  const set = (index: number, value: number) =>
    submit((copy) => copy.fill(value, index, index + 1));
  t.throws(set(0, body.length), { name: 'KernelError', message: /newRow lies outside/ });
  t.throws(set(0, -8), { message: /newRow lies outside/ });
  t.throws(set(0, 4), { message: /newRow lies outside/ });
  t.throws(set(1, 2 ** 31 - 1), { message: /newRow lies outside/ });
  t.throws(set(7, -1), { message: /newTokenIds lies outside/ });
  t.throws(
    submit((copy) => copy.subarray(2)),
    { message: /column table has/ },
  );
  const result = await model.step([row], scheduled);
  t.equal(result.step, 0, 'a step that was refused leaves no trace');
});

t.test('depth + 1 steps may be in flight, and they report in order', async (t) => {
  const model = await loadModel('models/demo', { load: { asyncDepth: 3 } });
  t.teardown(() => model.close());
  const prompt = Array.from({ length: 200 }, (_, i) => i + 300);
  const first = model.step(
    [{ row: 0, tokens: prompt, params: { temperature: 0 }, blocks: blocksFor(260) }],
    [{ row: 0, start: 0, count: 200, flags: stepFlags.sample }],
  );
  const next = (i: number) =>
    model.step([], [{ row: 0, start: 200 + i, count: 1, flags: stepFlags.sample }]);
  const steps = [first, next(0), next(1), next(2)];
  t.throws(() => void next(3), { name: 'KernelError', message: /more than 4 steps in flight/ });
  const results = await Promise.all(steps);
  t.same(
    results.map((r) => r.step),
    [0, 1, 2, 3],
  );
  for (const { startUs, endUs } of results) t.ok(endUs >= startUs);
  t.equal(model.backend.position().step, 3);
  // The same tokens one step at a time.
  const alone = await model.decode(0, 204, 4);
  t.equal(alone.length, 4);
});

t.test('prompt logprobs are those of the logits, in chunks and in slices', async (t) => {
  const prompt = Array.from({ length: 30 }, (_, i) => (i * 91) % 8192);
  const params = { temperature: 0, promptLogprobs: 3, logprobs: 1 };
  const flags = stepFlags.promptLogprobs;
  const run = async (chunks: number[], maxNumLogits: number) => {
    const model = await loadModel('models/demo', { maxNumLogits });
    const rows: NewRow[] = [{ row: 2, tokens: prompt, params, blocks: blocksFor(48) }];
    const seen: [number, number, number, number[]][] = [];
    let start = 0;
    for (const count of chunks) {
      const last = start + count === prompt.length;
      const { columns } = await model.step(start === 0 ? rows : [], [
        { row: 2, start, count, flags: flags | (last ? stepFlags.sample : 0) },
      ]);
      columns.promptLogprobPosition.forEach((position, i) => {
        const top = columns.promptTopIds.slice(i * 3, i * 3 + 3);
        seen.push([position, columns.promptLogprob[i]!, columns.promptLogprobRank[i]!, [...top]]);
      });
      t.same([...columns.logprobIndex], last ? [0] : []);
      start += count;
    }
    const logits = new Float32Array(model.backend.readBuffer(model.logitsBuffer));
    await model.close();
    return { seen, logits };
  };
  const { seen, logits } = await run([30], 64);
  t.same(
    seen.map(([position]) => position),
    Array.from({ length: 29 }, (_, i) => i + 1),
  );
  for (const [position, logprob, rank] of seen) {
    const row = logits.subarray((position - 1) * 8192, position * 8192);
    const max = row.reduce((a, b) => Math.max(a, b));
    const sum = row.reduce((total, x) => total + Math.exp(x - max), 0);
    const x = row[prompt[position]!]!;
    t.ok(Math.abs(logprob - (x - max - Math.log(sum))) < 1e-4);
    t.equal(rank, 1 + row.filter((other) => other > x).length);
  }
  t.same((await run([7, 7, 7, 9], 64)).seen, seen);
  t.same((await run([30], 4)).seen, seen);
});

t.test('load refuses by name what the backend cannot do', async (t) => {
  const refused = (message: RegExp, change: object, blockSize = 16) =>
    t.rejects(
      new CpuBackend().load({
        ...defaultLoad,
        blockSize,
        program: { ...sampleOnly, ...change },
        weights: [],
      }),
      { name: 'KernelError', message },
    );
  await refused(/computes in f32, not in bf16/, { actDtype: 'bf16' });
  await refused(/block size 8 is not supported on cpu: it must be a multiple of 16/, {}, 8);
  const numbers = (change: object) =>
    new CpuBackend().load({ ...defaultLoad, ...change, program: sampleOnly, weights: [] });
  for (const numBlocks of [2 ** 31 + 1, 2 ** 32 + 64, 64.5, NaN])
    await t.rejects(numbers({ numBlocks }), { message: /numBlocks is .* no 32-bit integer/ });
  const group = sampleOnly.kvGroups[0]!;
  await refused(/several KV groups are not supported on cpu yet/, { kvGroups: [group, group] });
  await refused(/head dim 20/, { kvGroups: [{ ...group, headDim: 20 }] });
  await refused(/a KV cache in u8/, { kvGroups: [{ ...group, dtype: 'u8' }] });
  await refused(/ends outside the arena/, { arenaBytes: 64 });
  await refused(/sample\.logits has 100 columns, expected 101/, { vocabSize: 101 });
});

t.test('the ledger counts what threads and attention may use beside the arena', async (t) => {
  const scratch = async (change: object) => {
    const backend = new CpuBackend();
    const { memory } = await loadFolder(backend, 'models/demo', change);
    await backend.close();
    return memory['scratch']!;
  };
  const one = await scratch({ numThreads: 1 });
  // The sampler's copies of a row of logits: z, counts, exps and values.
  t.ok(one > 4 * 4 * 8192 && one < 6 * 4 * 8192, `${one} bytes of one thread`);
  t.equal(await scratch({ numThreads: 1, maxModelLen: 9000 }), one, 'one thread divides nothing');
  const short = await scratch({ numThreads: 2, maxModelLen: 256 });
  t.equal(short, 2 * one, 'a context of one chunk neither');
  // 7 tiles of two threads; 32 chunks of 256 and one of 2,048; max, sum and 64 values a row.
  const long = (await scratch({ numThreads: 2, maxModelLen: 9000 })) - 2 * one;
  t.equal(long % (7 * 33 * 66 * 4), 0);
  t.ok(long >= 7 * 33 * 66 * 4, `${long} bytes of partial results`);
});

t.test('the ledger counts what was allocated; a closed backend takes nothing', async (t) => {
  const backend = new CpuBackend();
  const { device, memory } = await backend.load({
    ...defaultLoad,
    program: sampleOnly,
    weights: [],
  });
  t.match(device, /^cpu \((portable|avx2|avx512), 2 threads\)$/);
  t.equal(memory['kvCache'], 64 * 2 * 16 * 16 * 4);
  t.equal(memory['activations'], sampleOnly.arenaBytes);
  await backend.close();
  await backend.close();
  const { body, table } = packStep(stepColumns([row], scheduled));
  try {
    backend.submit(0, 4, body, table);
    t.fail('must throw');
  } catch (error) {
    t.ok(error instanceof KernelError);
  }
});
