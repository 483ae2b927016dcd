// ropeAndCache and attention together, since only the cache's own kernel reads its layout.
import t from 'tap';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import type { Dtype } from '../../../kernels/program.ts';
import { arg, normalizedError, randomValues, runOps, storeAs } from './one-op.ts';

interface Case {
  readonly lengths: readonly number[];
  readonly heads: number;
  readonly kvHeads: number;
  readonly dim: number;
  readonly window?: number;
  readonly kvDtype?: Dtype;
  readonly blockSize?: number;
  readonly numThreads?: number;
  /** Check only this many tokens at the end of each row. */
  readonly last?: number;
}

const scale = 0.3;

async function attention(c: Case, variant: CpuVariant) {
  const { heads, kvHeads, dim } = c;
  const columns = (heads + 2 * kvHeads) * dim;
  const numTokens = c.lengths.reduce((sum, length) => sum + length, 0);
  const qkv = randomValues(numTokens * columns, numTokens);
  const angles = randomValues(numTokens * (dim / 2), 2);
  const cosSin = new Float32Array(numTokens * dim);
  angles.forEach((angle, i) => {
    const at = Math.floor(i / (dim / 2)) * dim + (i % (dim / 2));
    cosSin[at] = Math.cos(angle);
    cosSin[at + dim / 2] = Math.sin(angle);
  });
  const shape = { layer: 1, numHeads: heads, numKvHeads: kvHeads, headDim: dim };
  const [, , out] = await runOps({
    ops: [
      { op: 'ropeAndCache', args: { qkv: arg.buffer(0), cosSin: arg.buffer(1) }, attrs: shape },
      {
        op: 'attention',
        args: { out: arg.buffer(2), qkv: arg.buffer(0) },
        attrs: { ...shape, scale, window: c.window ?? 0 },
      },
    ],
    buffers: [{ columns, values: qkv }, { columns: dim, values: cosSin }, { columns: heads * dim }],
    kv: { numLayers: 2, numKvHeads: kvHeads, headDim: dim, dtype: c.kvDtype ?? 'f32' },
    window: c.window ?? 0,
    rows: c.lengths.map((length) => Array.from({ length }, () => 1)),
    variant,
    blockSize: c.blockSize ?? 16,
    numThreads: c.numThreads ?? 2,
  });
  return { qkv, cosSin, out: out! };
}

/** float64 attention of the tokens that are checked; returns the largest error of a token. */
async function check(c: Case, variant: CpuVariant): Promise<number> {
  const { heads, kvHeads, dim } = c;
  const columns = (heads + 2 * kvHeads) * dim;
  const { qkv, cosSin, out } = await attention(c, variant);
  const rotated = (t: number, head: number) =>
    Array.from({ length: dim }, (_, i) => {
      const x = t * columns + head * dim;
      const half = dim / 2;
      const [cos, sin] = [cosSin[t * dim + (i % half)]!, cosSin[t * dim + half + (i % half)]!];
      return qkv[x + i]! * cos + (i < half ? -qkv[x + i + half]! : qkv[x + i - half]!) * sin;
    });
  const cached = (values: ArrayLike<number>) =>
    storeAs(c.kvDtype ?? 'f32', Float32Array.from(values)).held;
  let worst = 0;
  let begin = 0;
  for (const length of c.lengths) {
    const keys = new Map<number, Float32Array>();
    const from = Math.max(0, length - (c.last ?? length));
    for (let position = from; position < length; position++)
      for (let head = 0; head < heads; head++) {
        const kvHead = Math.floor(head / (heads / kvHeads));
        const q = rotated(begin + position, head);
        const first = c.window ? Math.max(0, position - c.window + 1) : 0;
        const wanted = new Float64Array(dim);
        const scores: number[] = [];
        for (let j = first; j <= position; j++) {
          const id = j * kvHeads + kvHead;
          if (!keys.has(id)) keys.set(id, cached(rotated(begin + j, heads + kvHead)));
          scores.push(scale * keys.get(id)!.reduce((sum, k, i) => sum + k * q[i]!, 0));
        }
        const max = scores.reduce((a, b) => Math.max(a, b));
        const weights = scores.map((score) => Math.exp(score - max));
        const total = weights.reduce((sum, w) => sum + w, 0);
        weights.forEach((weight, j) => {
          const at = (begin + first + j) * columns + (heads + kvHeads + kvHead) * dim;
          const v = cached(qkv.subarray(at, at + dim));
          for (let i = 0; i < dim; i++) wanted[i]! += (weight / total) * v[i]!;
        });
        const at = (begin + position) * heads * dim + head * dim;
        worst = Math.max(worst, normalizedError(out.subarray(at, at + dim), wanted));
      }
    begin += length;
  }
  return worst;
}

const small: readonly Case[] = [
  { lengths: [1], heads: 1, kvHeads: 1, dim: 16 },
  { lengths: [2, 7, 8, 9], heads: 3, kvHeads: 1, dim: 64 },
  { lengths: [63, 1, 64, 65], heads: 4, kvHeads: 2, dim: 32 },
  { lengths: [33], heads: 8, kvHeads: 1, dim: 16, blockSize: 32 },
  { lengths: [40], heads: 14, kvHeads: 2, dim: 80 },
  { lengths: [100, 17], heads: 6, kvHeads: 2, dim: 48, window: 20 },
  { lengths: [130], heads: 2, kvHeads: 2, dim: 128, window: 1 },
  { lengths: [70], heads: 3, kvHeads: 1, dim: 64, kvDtype: 'bf16' },
];
const long: readonly Case[] = [
  { lengths: [255, 256, 257], heads: 3, kvHeads: 1, dim: 16, last: 3 },
  { lengths: [600], heads: 2, kvHeads: 1, dim: 16, window: 300, last: 3 },
  { lengths: [8300], heads: 1, kvHeads: 1, dim: 16, last: 2 },
];

for (const variant of ['', 'portable'] as const)
  t.test(
    `attention ${variant || 'best'} is within rounding of float64`,
    { timeout: 600_000 },
    async (t) => {
      for (const c of [...small, ...(variant === '' ? long : long.slice(0, 2))]) {
        const error = await check(c, variant);
        t.ok(error < 1e-11, `${JSON.stringify(c)}: ${error}`);
      }
    },
  );

t.test('attention has the same bits on any number of threads', { timeout: 600_000 }, async (t) => {
  const c: Case = { lengths: [700, 5], heads: 6, kvHeads: 2, dim: 32 };
  const [one, two, five] = await Promise.all(
    [1, 2, 5].map(async (numThreads) => (await attention({ ...c, numThreads }, '')).out),
  );
  t.same(one, two);
  t.same(one, five);
});
