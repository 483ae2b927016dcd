// Embedding, elementwise ops and linears on the cuda backend against the cpu backend's f32, on a GPU:
// the same inputs, as the dtype holds them; odd sizes and every class of m; no row beyond the step's
// is written. What the cpu backend computes its own tests hold against float64; attention and the
// sampler are held against references of their own (check.py). Skipped where there is no GPU.
import t, { type Test } from 'tap';
import type { Dtype } from '../../../kernels/program.ts';
import { arg, normalizedError, randomValues, runOps, storeAs, type OpRun } from '../cpu/one-op.ts';
import { loadCuda, noGpu } from './gpu.ts';

t.setTimeout(600_000);

/** Of a square error: an output is rounded once to dtype. */
const limits: Readonly<Partial<Record<Dtype, number>>> = { bf16: 1e-5, f16: 2e-7 };
const dtypes = ['bf16', 'f16'] as const;

const tokens = (count: number) => Array.from({ length: count }, (_, i) => i % 100);

/** Buffer `out` of both, from inputs and weights that dtype can hold. */
async function compare(t: Test, name: string, dtype: Dtype, out: number, run: OpRun) {
  const hold = (values: Float32Array) => storeAs(dtype, values).held;
  const held: OpRun = {
    ...run,
    buffers: run.buffers.map((buffer) =>
      buffer.values && !buffer.f32 ? { ...buffer, values: hold(buffer.values) } : buffer,
    ),
    ...(run.kv && { kv: { ...run.kv, dtype } }),
  };
  const [ours, theirs] = await Promise.all([
    runOps({ ...held, actDtype: dtype }, loadCuda),
    runOps(held),
  ]);
  const error = normalizedError(ours[out]!, theirs[out]!);
  t.ok(error < limits[dtype]!, `${name} ${dtype}: ${error}`);
}

for (const dtype of dtypes) {
  t.test(`embedding ${dtype}`, { skip: noGpu }, async (t) => {
    await compare(t, 'embedding', dtype, 0, {
      ops: [
        {
          op: 'embedding',
          args: { out: arg.buffer(0), weight: arg.weight(0) },
          attrs: { firstId: 2 },
        },
      ],
      buffers: [{ columns: 40 }],
      weights: [{ shape: [90, 40], dtype, values: randomValues(90 * 40, 1) }],
      vocabSize: 100,
      rows: [tokens(100), tokens(7)],
    });
  });

  t.test(`norms, silu and rope’s angles ${dtype}`, { skip: noGpu }, async (t) => {
    for (const h of [8, 64, 576, 1032, 4104])
      await compare(t, `rmsNorm ${h}`, dtype, 0, {
        ops: [
          {
            op: 'rmsNorm',
            args: { out: arg.buffer(0), x: arg.buffer(1), weight: arg.weight(0) },
            attrs: { eps: 1e-5 },
          },
        ],
        buffers: [{ columns: h }, { columns: h, values: randomValues(5 * h, h) }],
        weights: [{ shape: [h], dtype, values: randomValues(h, 2) }],
        rows: [tokens(5)],
      });
    for (const [heads, kvHeads, headDim] of [
      [5, 1, 64],
      [4, 2, 80],
      [3, 3, 256],
    ] as const) {
      const columns = (heads + 2 * kvHeads) * headDim;
      await compare(t, `headRmsNorm ${headDim}`, dtype, 0, {
        ops: [
          {
            op: 'headRmsNorm',
            args: { qkv: arg.buffer(0), qWeight: arg.weight(0), kWeight: arg.weight(1) },
            attrs: { numHeads: heads, numKvHeads: kvHeads, headDim, eps: 1e-6 },
          },
        ],
        buffers: [{ columns, values: randomValues(3 * columns, 1) }],
        weights: [2, 3].map((seed) => ({
          shape: [headDim],
          dtype,
          values: randomValues(headDim, seed),
        })),
        rows: [tokens(3)],
      });
    }
    for (const width of [8, 104, 3072])
      await compare(t, `siluAndMul ${width}`, dtype, 0, {
        ops: [{ op: 'siluAndMul', args: { out: arg.buffer(0), gateUp: arg.buffer(1) }, attrs: {} }],
        buffers: [
          { columns: width },
          { columns: 2 * width, values: randomValues(6 * width, width).map((value) => value * 20) },
        ],
        rows: [tokens(3)],
      });
    await compare(t, 'ropeCosSin', dtype, 0, {
      ops: [
        {
          op: 'ropeCosSin',
          args: { out: arg.buffer(0), invFreq: arg.weight(0) },
          attrs: { factor: 1.25 },
        },
      ],
      buffers: [{ columns: 64, f32: true }],
      weights: [
        { shape: [32], values: Float32Array.from({ length: 32 }, (_, i) => 1e4 ** (-i / 32)) },
      ],
      rows: [tokens(300)],
      start: 100,
    });
  });

  t.test(`linear ${dtype}`, { skip: noGpu }, async (t) => {
    for (const [n, k] of [
      [200, 64],
      [77, 48],
      [1032, 576],
    ] as const)
      for (const m of [1, 2, 7, 16, 17, 64, 65, 130])
        for (const more of [false, true])
          await compare(t, `linear ${m} x ${n} x ${k} ${more ? 'and addends' : ''}`, dtype, 0, {
            ops: [
              {
                op: 'linear',
                args: {
                  out: arg.buffer(0),
                  x: arg.buffer(1),
                  weight: arg.weight(0),
                  ...(more && { bias: arg.weight(1), residual: arg.buffer(2) }),
                },
                attrs: {},
              },
            ],
            buffers: [
              { columns: n, ...(!more && { f32: true }) },
              { columns: k, values: randomValues(m * k, 1) },
              { columns: n, values: randomValues(m * n, 4) },
            ],
            weights: [
              { shape: [n, k], dtype, values: randomValues(n * k, 2) },
              { shape: [n], dtype, values: randomValues(n, 3) },
            ],
            rows: [tokens(m)],
          });
  });
}
