// The cuda backend's face, on a GPU: bad steps, steps in flight, rows that end on the device, and
// the sampler's tokens against the reference's. Skipped where there is none.
import t, { type Test } from 'tap';
import { rowFlags, stepFlags, type StepInputColumns } from '../../../common/wire/step.ts';
import { sampleRow } from '../../../kernels/reference/sampler.ts';
import { badColumns, badSteps, row, scheduled } from '../cpu/bad-steps.ts';
import { blocksFor, packStep, stepColumns, type NewRow } from '../cpu/harness.ts';
import {
  hasLogprobs,
  ids,
  referenceRow,
  roundOf,
  sampleAll,
  vocabSize,
} from '../cpu/sampler-cases.ts';
import { loadDemo, loadSampler, noGpu } from './gpu.ts';

t.setTimeout(300_000);
const { sample } = stepFlags;
const blocks = [1];

async function rejects(t: Test, message: RegExp, columns: StepInputColumns): Promise<void> {
  const model = await loadSampler(100, { load: { debugSync: true } });
  await t.rejects(model.submit(columns), { name: 'KernelError', step: 0, message });
  const after = new RegExp(`has failed .*: .*${message.source}.*step 0`);
  t.throws(() => void model.submit(columns), { name: 'KernelError', message: after });
  await model.close();
}

t.test(
  'a bad value in a step is a KernelError that names its column',
  { skip: noGpu },
  async (t) => {
    for (const [message, change] of badSteps) await rejects(t, message, badColumns(change));
    await rejects(t, /column row: row 1 twice/, stepColumns([row], [...scheduled, ...scheduled]));
  },
);

t.test('a column table that leaves the body throws at submit', { skip: noGpu }, async (t) => {
  const model = await loadSampler(100);
  t.teardown(() => model.close());
  const { body, table } = packStep(stepColumns([row], scheduled));
  table[0] = body.length;
  t.throws(() => model.backend.submit(0, 4, body, table), { message: /newRow lies outside/ });
  const result = await model.step([row], scheduled);
  t.equal(result.step, 0, 'a step that was refused leaves no trace');
});

t.test('steps in flight report in order', { skip: noGpu }, async (t) => {
  const model = await loadDemo({ load: { asyncDepth: 3 } });
  t.teardown(() => model.close());
  const tokens = Array.from({ length: 200 }, (_, i) => i + 300);
  const first: NewRow = { row: 0, tokens, params: { temperature: 0 }, blocks: blocksFor(260) };
  const next = (i: number) => model.step([], [{ row: 0, start: 200 + i, count: 1, flags: sample }]);
  const steps = [
    model.step([first], [{ row: 0, start: 0, count: 200, flags: sample }]),
    next(0),
    next(1),
    next(2),
  ];
  const results = await Promise.all(steps);
  t.same(
    results.map((result) => result.step),
    [0, 1, 2, 3],
  );
  for (const { startUs, endUs } of results) t.ok(endUs > startUs);
  t.equal(model.backend.position().step, 3);
  t.equal((await model.decode(0, 204, 4)).length, 4);
});

for (const [way, load] of [
  ['graphs', {}],
  ['eager', { enforceEager: true }],
  ['each op awaited', { debugSync: true }],
] as const)
  t.test(`sampled ids are the reference's (${way})`, { skip: noGpu }, async (t) => {
    const model = await loadSampler(vocabSize, { load });
    t.teardown(() => model.close());
    let different = 0;
    for (let round = 0; round < 20; round++) {
      const { rows, logits } = roundOf(round);
      const { columns } = await sampleAll(model, rows, logits, blocks);
      rows.forEach((request, j) => {
        const wanted = sampleRow(logits[j]!, referenceRow(request));
        if (columns.tokenId[j] === wanted) return;
        different++;
        t.comment(`row ${round * 16 + j}: ${columns.tokenId[j]!}, not ${wanted}`);
      });
    }
    t.ok(different <= 1, `${different} of 320 differ`);
  });

/** Lists of up to 32 come from the graph, longer ones make a step run op by op. */
for (const [longest, way] of [
  [20, 'in a graph'],
  [128, 'op by op'],
] as const)
  t.test(
    `logprobs, ranks and top lists are the reference’s, ${way}`,
    { skip: noGpu },
    async (t) => {
      const named = [2999, 0, 17, ...ids(125, 9)];
      const asked = [
        { logprobs: 0 },
        { logprobs: null },
        { logprobs: 20 },
        { logprobs: 0, logprobTokenIds: named },
        { logprobs: longest },
        { logprobs: 5 },
      ];
      const rows = asked.map((params, i) => ({
        tokens: ids(4, i),
        params: { ...params, seed: i },
      }));
      const logits = roundOf(3).logits.slice(0, rows.length);
      const sampled = async (debugSync: boolean) => {
        const model = await loadSampler(vocabSize, { load: { maxLogprobs: 128, debugSync } });
        const { columns } = await sampleAll(model, rows, logits, blocks);
        await model.close();
        return columns;
      };
      const columns = await sampled(false);
      t.same(columns, await sampled(true), 'the same with every op waited for');
      t.same([...columns.logprobIndex], [0, 2, 3, 4, 5]);
      t.same([...columns.topCount], [0, 20, 128, longest, 5]);
      hasLogprobs(t, columns, asked, logits);
    },
  );

t.test(
  'a row ends on the device; steps in flight do nothing for it',
  { skip: noGpu },
  async (t) => {
    for (const debugSync of [false, true]) {
      const model = await loadSampler(vocabSize, { load: { debugSync } });
      t.teardown(() => model.close());
      const logits = new Float32Array(4 * vocabSize);
      for (const r of [0, 1, 2]) logits[r * vocabSize + 42] = 100;
      logits[3 * vocabSize + 7] = NaN;
      model.backend.writeBuffer(0, logits);
      const request = { tokens: [1, 2], params: { temperature: 0 }, blocks };
      const rows = [
        { ...request, row: 0, stopIds: [42] },
        { ...request, row: 1, stopIds: Array.from({ length: 20 }, (_, i) => i + 30) },
        { ...request, row: 2 },
        { ...request, row: 3 },
      ];
      const at = (start: number) =>
        rows.map((r) => ({ row: r.row, start, count: 1, flags: sample }));
      const results = await Promise.all([
        model.step(rows, at(1)),
        model.step([], at(2)),
        model.step([], at(3)),
      ]);
      t.same(
        results.map(({ columns }) => [...columns.tokenId]),
        [
          [42, 42, 42, -1],
          [-1, -1, 42, -1],
          [-1, -1, 42, -1],
        ],
      );
      for (const { columns } of results) t.same([...columns.rowFlags], [0, 0, 0, rowFlags.nan]);
      // Filled anew, a row knows nothing of what it was.
      const { columns } = await model.step(
        [{ ...request, row: 3, maxNumTokens: 3 }],
        [{ row: 3, start: 1, count: 1, flags: sample }],
      );
      t.same([[...columns.tokenId], [...columns.rowFlags]], [[42], [0]]);
      const over = await model.step([], [{ row: 3, start: 2, count: 1, flags: sample }]);
      t.same([...over.columns.tokenId], [-1]);
    }
  },
);
