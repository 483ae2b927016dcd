// Each op on the cuda backend against the cpu backend's f32, on a GPU: the same inputs, as the dtype
// holds them; odd sizes and every class of m; no row beyond the step's is written. What the cpu
// backend computes its own tests hold against float64. Tokens of sample are compared as they are
// (backend.test.ts). Skipped where there is no GPU.
import t, { type Test } from 'tap';
import { stepFlags } from '../../../common/wire/step.ts';
import type { BackendLoad } from '../../../kernels/backend.ts';
import type { Dtype } from '../../../kernels/program.ts';
import { arg, normalizedError, randomValues, runOps, storeAs, type OpRun } from '../cpu/one-op.ts';
import { loadCuda, noGpu } from './gpu.ts';

t.setTimeout(600_000);

type Limits = Readonly<Partial<Record<Dtype, number>>>;
/** Of a square error: an output is rounded once to dtype. */
const limits: Limits = { bf16: 1e-5, f16: 2e-7 };
/** Queries, weights and outputs are rounded: (6e-3)^2 and (8e-4)^2, as check_attention.py allows. */
const attentionLimits: Limits = { bf16: 3.6e-5, f16: 6.4e-7 };
const dtypes = ['bf16', 'f16'] as const;

const tokens = (count: number) => Array.from({ length: count }, (_, i) => i % 100);

/** The blocks that runOps asks for hold a context of this length: cuda starts with no fewer. */
const load = (each: BackendLoad) => loadCuda({ ...each, maxModelLen: 4096 });

/** Buffer `out` of both, from inputs and weights that dtype can hold. */
async function compare(
  t: Test,
  name: string,
  dtype: Dtype,
  out: number,
  run: OpRun,
  limit = limits[dtype]!,
) {
  const hold = (values: Float32Array) => storeAs(dtype, values).held;
  const held: OpRun = {
    ...run,
    buffers: run.buffers.map((buffer) =>
      buffer.values && !buffer.f32 ? { ...buffer, values: hold(buffer.values) } : buffer,
    ),
    ...(run.kv && { kv: { ...run.kv, dtype } }),
  };
  const [ours, theirs] = await Promise.all([
    runOps({ ...held, actDtype: dtype }, load),
    runOps(held),
  ]);
  const error = normalizedError(ours[out]!, theirs[out]!);
  t.ok(error < limit, `${name} ${dtype}: ${error}`);
}

for (const dtype of dtypes) {
  t.test(`embedding, gatherLogitRows ${dtype}`, { skip: noGpu }, async (t) => {
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
    // A step of cuda has rows of logits only where something samples them.
    await compare(t, 'gatherLogitRows', dtype, 1, {
      ops: [
        { op: 'gatherLogitRows', args: { out: arg.buffer(1), x: arg.buffer(0) }, attrs: {} },
        { op: 'sample', args: { logits: arg.buffer(2) }, attrs: {} },
      ],
      buffers: [
        { columns: 24, values: randomValues(12 * 24, 5) },
        { columns: 24, logits: true },
        { columns: 1000, logits: true, f32: true, values: randomValues(3 * 1000, 6) },
      ],
      rows: [tokens(5), tokens(1), tokens(6)],
      flags: stepFlags.sample,
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

  t.test(`ropeAndCache and attention ${dtype}`, { skip: noGpu }, async (t) => {
    for (const [headDim, heads, kvHeads, lengths, window] of [
      [64, 9, 3, [1, 2, 63, 64, 65], 0],
      [64, 8, 8, [300], 100],
      [80, 14, 2, [40, 257], 0],
      [96, 4, 1, [130], 0],
      [128, 8, 2, [255, 256, 600], 0],
      [128, 16, 1, [70], 20],
      [256, 3, 1, [129, 1], 0],
    ] as const) {
      const columns = (heads + 2 * kvHeads) * headDim;
      const numTokens = lengths.reduce((sum, length) => sum + length, 0);
      const angles = randomValues(numTokens * (headDim / 2), 2);
      const cosSin = new Float32Array(numTokens * headDim);
      angles.forEach((angle, i) => {
        const at = Math.floor(i / (headDim / 2)) * headDim + (i % (headDim / 2));
        cosSin[at] = Math.cos(angle);
        cosSin[at + headDim / 2] = Math.sin(angle);
      });
      const attrs = { layer: 1, numHeads: heads, numKvHeads: kvHeads, headDim };
      await compare(
        t,
        `attention ${lengths.join()}, ${heads}/${kvHeads} x ${headDim}`,
        dtype,
        2,
        {
          ops: [
            { op: 'ropeAndCache', args: { qkv: arg.buffer(0), cosSin: arg.buffer(1) }, attrs },
            {
              op: 'attention',
              args: { out: arg.buffer(2), qkv: arg.buffer(0) },
              attrs: { ...attrs, scale: headDim ** -0.5, window },
            },
          ],
          buffers: [
            { columns, values: randomValues(numTokens * columns, numTokens) },
            { columns: headDim, f32: true, values: cosSin },
            { columns: heads * headDim },
          ],
          kv: { numLayers: 2, numKvHeads: kvHeads, headDim, dtype },
          window,
          rows: lengths.map(tokens),
        },
        attentionLimits[dtype],
      );
    }
  });
}
