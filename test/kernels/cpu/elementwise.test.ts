import t from 'tap';
import { stepFlags } from '../../../common/wire/step.ts';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import { arg, normalizedError, randomValues, runOps } from './one-op.ts';

const variants: readonly CpuVariant[] = ['', 'portable'];
const tokens = (count: number) => Array.from({ length: count }, (_, i) => i % 100);

for (const variant of variants) {
  const name = variant || 'best';

  t.test(`rmsNorm ${name}`, async (t) => {
    for (const h of [1, 7, 8, 31, 64, 100, 576]) {
      const x = randomValues(3 * h, h).map((value) => value * 3);
      const weight = randomValues(h, 2);
      const [out] = await runOps({
        ops: [
          {
            op: 'rmsNorm',
            args: { out: arg.buffer(0), x: arg.buffer(1), weight: arg.weight(0) },
            attrs: { eps: 1e-5 },
          },
        ],
        buffers: [{ columns: h }, { columns: h, values: x }],
        weights: [{ shape: [h], values: weight }],
        rows: [tokens(3)],
        variant,
      });
      const wanted = x.map((value, i) => {
        const row = x.subarray(i - (i % h), i - (i % h) + h);
        const mean = row.reduce((sum, v) => sum + v * v, 0) / h;
        return (value / Math.sqrt(mean + 1e-5)) * weight[i % h]!;
      });
      t.ok(normalizedError(out!, wanted) < 1e-12, `H = ${h}`);
    }
  });

  t.test(`headRmsNorm ${name} leaves V as it is`, async (t) => {
    const [heads, kvHeads, dim] = [4, 2, 16];
    const columns = (heads + 2 * kvHeads) * dim;
    const qkv = randomValues(2 * columns, 1);
    const q = randomValues(dim, 2);
    const k = randomValues(dim, 3);
    const [out] = await runOps({
      ops: [
        {
          op: 'headRmsNorm',
          args: { qkv: arg.buffer(0), qWeight: arg.weight(0), kWeight: arg.weight(1) },
          attrs: { numHeads: heads, numKvHeads: kvHeads, headDim: dim, eps: 1e-6 },
        },
      ],
      buffers: [{ columns, values: qkv }],
      weights: [
        { shape: [dim], values: q },
        { shape: [dim], values: k },
      ],
      rows: [tokens(2)],
      variant,
    });
    const wanted = qkv.map((value, i) => {
      const head = Math.floor((i % columns) / dim);
      if (head >= heads + kvHeads) return value;
      const begin = i - (i % dim);
      const mean = qkv.subarray(begin, begin + dim).reduce((sum, v) => sum + v * v, 0) / dim;
      return (value / Math.sqrt(mean + 1e-6)) * (head < heads ? q : k)[i % dim]!;
    });
    t.ok(normalizedError(out!, wanted) < 1e-12);
    for (let i = 0; i < 2; i++) {
      const at = i * columns + (heads + kvHeads) * dim;
      t.same(out!.slice(at, at + kvHeads * dim), qkv.slice(at, at + kvHeads * dim));
    }
  });

  t.test(`siluAndMul ${name}, also where exp leaves its range`, async (t) => {
    for (const width of [1, 5, 64, 65, 200]) {
      const gateUp = randomValues(4 * width, width).map((value, i) => value * (i % 3 ? 5 : 200));
      const [out] = await runOps({
        ops: [{ op: 'siluAndMul', args: { out: arg.buffer(0), gateUp: arg.buffer(1) }, attrs: {} }],
        buffers: [{ columns: width }, { columns: 2 * width, values: gateUp }],
        rows: [tokens(2)],
        variant,
      });
      const wanted = Array.from({ length: 2 * width }, (_, i) => {
        const at = Math.floor(i / width) * 2 * width + (i % width);
        return (gateUp[at]! / (1 + Math.exp(-gateUp[at]!))) * gateUp[at + width]!;
      });
      t.ok(normalizedError(out!, wanted) < 1e-12, `I = ${width}`);
    }
  });

  t.test(`ropeCosSin ${name}`, async (t) => {
    const invFreq = Float32Array.from({ length: 8 }, (_, i) => 10000 ** (-i / 8));
    const [out] = await runOps({
      ops: [
        {
          op: 'ropeCosSin',
          args: { out: arg.buffer(0), invFreq: arg.weight(0) },
          attrs: { factor: 1.25 },
        },
      ],
      buffers: [{ columns: 16 }],
      weights: [{ shape: [8], values: invFreq }],
      rows: [tokens(300)],
      start: 100,
      variant,
    });
    const wanted = Array.from({ length: 200 * 16 }, (_, i) => {
      const angle = Math.fround((100 + Math.floor(i / 16)) * invFreq[i % 8]!);
      return 1.25 * (i % 16 < 8 ? Math.cos(angle) : Math.sin(angle));
    });
    t.ok(normalizedError(out!, wanted) < 1e-12);
  });
}

t.test('gatherLogitRows takes the last token of each row that samples', async (t) => {
  const x = randomValues(12 * 3, 5);
  const [, out] = await runOps({
    ops: [{ op: 'gatherLogitRows', args: { out: arg.buffer(1), x: arg.buffer(0) }, attrs: {} }],
    buffers: [
      { columns: 3, values: x },
      { columns: 3, logits: true },
    ],
    rows: [tokens(5), tokens(1), tokens(6)],
    flags: stepFlags.sample,
  });
  t.same(out, Float32Array.from([4, 5, 11].flatMap((r) => [...x.slice(r * 3, r * 3 + 3)])));
});
