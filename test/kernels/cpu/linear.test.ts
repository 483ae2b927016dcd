import t from 'tap';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import type { Dtype } from '../../../kernels/program.ts';
import { arg, normalizedError, randomValues, runOps, storeAs } from './one-op.ts';

export const variants: readonly CpuVariant[] = ['', 'portable'];

const tokens = (count: number) => Array.from({ length: count }, (_, i) => i % 100);

interface Shape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

async function linear(
  { m, n, k }: Shape,
  dtype: Dtype,
  variant: CpuVariant,
  extra: { bias?: boolean; residual?: boolean; numThreads?: number; x?: Float32Array } = {},
) {
  const x = extra.x ?? randomValues(m * k, 1);
  const w = randomValues(n * k, 2);
  const bias = randomValues(n, 3);
  const residual = randomValues(m * n, 4);
  const [out] = await runOps({
    ops: [
      {
        op: 'linear',
        args: {
          out: arg.buffer(0),
          x: arg.buffer(1),
          weight: arg.weight(0),
          ...(extra.bias && { bias: arg.weight(1) }),
          ...(extra.residual && { residual: arg.buffer(0) }),
        },
        attrs: {},
      },
    ],
    buffers: [
      { columns: n, ...(extra.residual && { values: residual }) },
      { columns: k, values: x },
    ],
    weights: [
      { shape: [n, k], dtype, values: w },
      { shape: [n], values: bias },
    ],
    rows: [tokens(m)],
    variant,
    ...(extra.numThreads !== undefined && { numThreads: extra.numThreads }),
  });
  const { held } = storeAs(dtype, w);
  const wanted = new Float64Array(m * n);
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) {
      let sum = (extra.bias ? bias[j]! : 0) + (extra.residual ? residual[i * n + j]! : 0);
      for (let l = 0; l < k; l++) sum += x[i * k + l]! * held[j * k + l]!;
      wanted[i * n + j] = sum;
    }
  return { out: out!, wanted };
}

const rowCounts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 32, 33];

for (const variant of variants)
  for (const dtype of ['f32', 'f16', 'bf16'] as const)
    t.test(`linear ${dtype} ${variant || 'best'} is within rounding of float64`, async (t) => {
      for (const m of rowCounts) {
        const { out, wanted } = await linear({ m, n: 70, k: 37 }, dtype, variant, {
          bias: m % 2 === 0,
          residual: m % 3 === 0,
        });
        const error = normalizedError(out, wanted);
        t.ok(error < 1e-12, `m = ${m}: ${error}`);
      }
      for (const [n, k] of [
        [1, 1],
        [15, 3],
        [16, 64],
        [17, 65],
        [129, 200],
      ] as const) {
        const { out, wanted } = await linear({ m: 5, n, k }, dtype, variant);
        t.ok(normalizedError(out, wanted) < 1e-12, `n = ${n}, k = ${k}`);
      }
    });

for (const variant of variants)
  t.test(
    `linear ${variant || 'best'}: a row has the same bits in every batch`,
    { timeout: 600_000 },
    async (t) => {
      const n = 200;
      const k = 300;
      const all = randomValues(300 * k, 7);
      const alone = await linear({ m: 1, n, k }, 'bf16', variant, { x: all.slice(0, k) });
      for (const m of [...rowCounts, 23, 24, 25, 47, 48, 49, 220, 300]) {
        const { out } = await linear({ m, n, k }, 'bf16', variant, {
          x: all.slice(0, m * k),
          numThreads: (m % 4) + 1,
        });
        t.ok(Buffer.from(out.buffer, 0, n * 4).equals(Buffer.from(alone.out.buffer)), `m = ${m}`);
      }
    },
  );

t.test('embedding reads rows back exactly as they were packed', async (t) => {
  for (const variant of variants)
    for (const dtype of ['f32', 'f16', 'bf16'] as const) {
      const values = randomValues(50 * 24, 9);
      const rows = [0, 1, 7, 8, 15, 16, 31, 33, 49];
      const [out] = await runOps({
        ops: [
          {
            op: 'embedding',
            args: { out: arg.buffer(0), weight: arg.weight(0) },
            attrs: { firstId: 0 },
          },
        ],
        buffers: [{ columns: 24 }],
        weights: [{ shape: [50, 24], dtype, values }],
        vocabSize: 50,
        rows: [rows],
        variant,
      });
      const { held } = storeAs(dtype, values);
      t.same(out, Float32Array.from(rows.flatMap((id) => [...held.slice(id * 24, id * 24 + 24)])));
    }
});
