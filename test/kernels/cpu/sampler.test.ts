// The native sampler against the reference's (docs/sampling.md), on logits written into the buffer.
import t from 'tap';
import { rowFlags, stepFlags } from '../../../common/wire/step.ts';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import { sampleRow } from '../../../kernels/reference/sampler.ts';
import { defaultLoad, Harness } from './harness.ts';
import { arg, makeProgram, randomValues } from './one-op.ts';
import { hasLogprobs, ids, referenceRow, roundOf, sampleAll, vocabSize } from './sampler-cases.ts';

const maxNumTokens = 64;

async function loadSampler(
  variant: CpuVariant = '',
  maxNumLogits = maxNumTokens,
): Promise<Harness> {
  const program = makeProgram(
    {
      ops: [{ op: 'sample', args: { logits: arg.buffer(0) }, attrs: {} }],
      buffers: [{ columns: vocabSize, logits: true }],
      rows: [],
      vocabSize,
    },
    maxNumTokens,
  );
  return Harness.load(
    { ...defaultLoad, program: { ...program, maxNumLogits }, weights: [] },
    variant,
  );
}

for (const variant of ['', 'portable', 'avx2'] as const)
  t.test(`sampled ids are the reference's (${variant || 'best'})`, async (t) => {
    const model = await loadSampler(variant);
    t.teardown(() => model.close());
    let different = 0;
    for (let round = 0; round < 20; round++) {
      const { rows, logits } = roundOf(round);
      const { columns } = await sampleAll(model, rows, logits);
      rows.forEach((row, j) => {
        const wanted = sampleRow(logits[j]!, referenceRow(row));
        if (columns.tokenId[j] === wanted) return;
        different++;
        t.comment(`row ${round * 16 + j}: ${columns.tokenId[j]!}, not ${wanted}`);
      });
    }
    t.equal(different, 0, 'of 320');
  });

t.test('logprobs, ranks and alternatives of each row', async (t) => {
  for (const variant of ['', 'portable'] as const) {
    const model = await loadSampler(variant);
    t.teardown(() => model.close());
    const named = [2999, 0, 17, 17, 1024, ...ids(123, 9)];
    const asked = [
      { logprobs: 0 },
      { logprobs: null },
      { logprobs: 20 },
      { logprobs: 7, logprobTokenIds: named },
      { logprobs: 65 },
      { logprobs: vocabSize },
      { logprobs: 0, logprobTokenIds: [42] },
      { logprobs: 5 },
    ];
    const rows = asked.map((params, i) => ({ tokens: ids(4, i), params: { ...params, seed: i } }));
    // Few distinct values, so that there are ties.
    const logits = rows.map((_, i) =>
      randomValues(vocabSize, i).map((x) => Math.round(x * 40) / (i + 1)),
    );
    const { columns } = await sampleAll(model, rows, logits);
    t.same([...columns.logprobIndex], [0, 2, 3, 4, 5, 6, 7]);
    t.same([...columns.topCount], [0, 20, 128, 65, vocabSize, 1, 5]);
    hasLogprobs(t, columns, asked, logits);
  }
});

t.test('a row with unfit logits ends alone', async (t) => {
  const model = await loadSampler();
  t.teardown(() => model.close());
  const logits = Array.from({ length: 7 }, (_, i) => randomValues(vocabSize, i));
  logits[0]![vocabSize - 1] = NaN;
  logits[1]![17] = Infinity;
  logits[2]!.fill(-Infinity);
  logits[3]![3] = -Infinity;
  logits[5]!.fill(-3e38);
  logits[6]!.fill(-3e38)[7] = -2e38;
  const rows = logits.map((_, i) => ({
    tokens: [1, 2, 3],
    params: { seed: i, logprobs: 0, ...(i > 4 && { temperature: 0.8 }) },
  }));
  const { columns } = await sampleAll(model, rows, logits);
  const { nan } = rowFlags;
  t.same([...columns.rowFlags], [nan, nan, nan, 0, 0, nan, 0]);
  t.same(
    [0, 1, 2, 5].map((i) => columns.tokenId[i]),
    [-1, -1, -1, -1],
  );
  t.ok(columns.tokenId[3]! >= 0 && columns.tokenId[4]! >= 0);
  t.equal(columns.tokenId[6], 7, 'the id that the temperature leaves');
  t.same([...columns.logprobIndex], [3, 4, 6]);
  const again = { row: 0, start: 3, count: 1, flags: stepFlags.sample };
  const later = (await model.step([], [again])).columns;
  t.same([...later.rowFlags], [rowFlags.nan], 'flagged again, until it is filled anew');
  t.same([...later.tokenId], [-1]);
});

t.test('the draw follows the softmax (chi-square)', async (t) => {
  const model = await loadSampler();
  t.teardown(() => model.close());
  const logits = new Float32Array(vocabSize).fill(-40);
  const weights = [1, 2, 3, 4, 5, 6, 7, 8];
  weights.forEach((weight, i) => (logits[i * 300] = Math.log(weight)));
  const counts = weights.map(() => 0);
  const draws = 4000;
  for (let seed = 0; seed < draws; seed += 32) {
    const rows = Array.from({ length: 32 }, (_, i) => ({
      tokens: [1],
      params: { seed: seed + i },
    }));
    const { columns } = await sampleAll(
      model,
      rows,
      rows.map(() => logits),
    );
    for (const id of columns.tokenId) counts[id / 300]!++;
  }
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const chiSquare = weights.reduce((sum, weight, i) => {
    const expected = (draws * weight) / total;
    return sum + (counts[i]! - expected) ** 2 / expected;
  }, 0);
  // 7 degrees of freedom: above 24.3 once in a thousand seeds; these are fixed.
  t.ok(chiSquare < 24.3, `chi-square is ${chiSquare}`);
});

t.test(
  'a row ends at a stop id and at its length, and later steps do nothing for it',
  async (t) => {
    const model = await loadSampler();
    t.teardown(() => model.close());
    const logits = new Float32Array(vocabSize);
    logits[42] = 100;
    const params = { temperature: 0 };
    const base = { tokens: [1, 2], params };
    await sampleAll(
      model,
      [{ ...base, stopIds: [42] }, { ...base, maxNumTokens: 3 }, base],
      [logits, logits, logits],
    );
    model.backend.writeBuffer(0, logits);
    const again = [0, 1, 2].map((row) => ({ row, start: 2, count: 1, flags: stepFlags.sample }));
    const { columns } = await model.step([], again);
    t.same([...columns.tokenId], [-1, -1, 42]);
    t.same([...columns.rowFlags], [0, 0, 0]);
  },
);
