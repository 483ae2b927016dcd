// Every op of the reference against torch in float64 (test/fixtures/make-op-fixtures.py).
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import {
  ropeCosSin,
  ropeAndCache,
  attention,
  type KvCache,
} from '../../../kernels/reference/attention.ts';
import type { Batch, BatchRow } from '../../../kernels/reference/batch.ts';
import type { BoundOp, BoundTensor } from '../../../kernels/reference/bound-op.ts';
import {
  gatherLogitRows,
  headRmsNorm,
  rmsNorm,
  siluAndMul,
} from '../../../kernels/reference/elementwise.ts';
import {
  bf16ToNumber,
  f16ToNumber,
  numberToBf16,
  numberToF16,
  roundTo,
} from '../../../kernels/reference/float-formats.ts';
import { embedding, linear } from '../../../kernels/reference/linear.ts';
import type { Row } from '../../../kernels/reference/row-table.ts';

type Fixture = Readonly<Record<string, readonly number[]>>;

function fixture(name: string): Fixture {
  return JSON.parse(readFileSync(`test/fixtures/ops/${name}.json`, 'utf8')) as Fixture;
}

/** Outputs are f32: torch's float64 numbers differ by that rounding alone. */
function checkClose(t: Test, actual: Float32Array, expected: readonly number[]): void {
  t.equal(actual.length, expected.length);
  const worst = expected.reduce((max, x, i) => {
    const error = Math.abs(x - actual[i]!) / Math.max(1e-3, Math.abs(x));
    return Math.max(max, Number.isNaN(error) ? Infinity : error);
  }, 0);
  t.ok(worst < 2e-6, `worst relative error ${worst}`);
}

type Values = readonly number[] | Float32Array;

function tensor(columns: number, values: Values): BoundTensor {
  return { data: Float32Array.from(values), rows: 'numTokens', columns, dtype: 'f32' };
}

function bound(
  tensors: Readonly<Record<string, BoundTensor>>,
  weights: Readonly<Record<string, Values>> = {},
  attrs: Readonly<Record<string, number>> = {},
  interleave = 0,
): BoundOp {
  const arrays = Object.entries(weights).map(([name, w]) => [name, Float32Array.from(w)] as const);
  return { tensors, weights: Object.fromEntries(arrays), attrs, interleave };
}

function batchOf(numTokens: number, rest: Partial<Batch> = {}): Batch {
  const none = new Int32Array(numTokens);
  return {
    rows: [],
    logitRows: [],
    numTokens,
    tokenIds: none,
    positions: none,
    slotMapping: new Int32Array(numTokens).fill(-1),
    rowOfToken: none,
    ...rest,
  };
}

t.test('embedding takes rows of the table', (t) => {
  const f = fixture('embedding');
  const out = tensor(6, new Float32Array(24));
  embedding(
    bound({ out }, { weight: f['weight']! }, { firstId: 0 }),
    batchOf(4, { tokenIds: Int32Array.from(f['tokenIds']!) }),
  );
  checkClose(t, out.data, f['out']!);
  t.end();
});

t.test('embedding of a part of the vocabulary leaves zeros for the ids of others', (t) => {
  const out = tensor(2, new Float32Array(8).fill(9));
  const weight = Float32Array.of(1, 2, 3, 4);
  const tokenIds = Int32Array.of(9, 10, 11, 12);
  embedding(bound({ out }, { weight }, { firstId: 10 }), batchOf(4, { tokenIds }));
  t.same([...out.data], [0, 0, 1, 2, 3, 4, 0, 0]);
  t.end();
});

t.test('rmsNorm', (t) => {
  const f = fixture('rms-norm');
  const out = tensor(12, new Float32Array(60));
  rmsNorm(
    bound({ out, x: tensor(12, f['x']!) }, { weight: f['weight']! }, { eps: 1e-5 }),
    batchOf(5),
    5,
  );
  checkClose(t, out.data, f['out']!);
  t.end();
});

t.test('linear, with bias and with the residual in the place of out', (t) => {
  const f = fixture('linear');
  const x = tensor(10, f['x']!);
  const out = tensor(7, new Float32Array(21));
  linear(bound({ out, x }, { weight: f['weight']! }), batchOf(3), 3);
  checkClose(t, out.data, f['plain']!);
  const residual = tensor(7, f['residual']!);
  const weights = { weight: f['weight']!, bias: f['bias']! };
  linear(bound({ out: residual, x, residual }, weights), batchOf(3), 3);
  checkClose(t, residual.data, f['full']!);
  t.end();
});

t.test('siluAndMul, with gate and up apart and in groups of four', (t) => {
  const f = fixture('silu-and-mul');
  for (const [name, interleave] of [
    ['gateUp', 0],
    ['interleaved4', 4],
  ] as const) {
    const out = tensor(16, new Float32Array(48));
    siluAndMul(bound({ out, gateUp: tensor(32, f[name]!) }, {}, {}, interleave), batchOf(3));
    checkClose(t, out.data, f['out']!);
  }
  t.end();
});

const heads = { numHeads: 4, numKvHeads: 2, headDim: 8 };

t.test('headRmsNorm leaves v alone', (t) => {
  const f = fixture('head-rms-norm');
  const qkv = tensor(64, f['qkv']!);
  const weights = { qWeight: f['qWeight']!, kWeight: f['kWeight']! };
  headRmsNorm(bound({ qkv }, weights, { ...heads, eps: 1e-6 }), batchOf(5));
  checkClose(t, qkv.data, f['out']!);
  t.end();
});

t.test('ropeCosSin', (t) => {
  const f = fixture('rope-cos-sin');
  const out = tensor(8, new Float32Array(40));
  const op = bound({ out }, { invFreq: f['invFreq']! }, { factor: 1.5 });
  ropeCosSin(op, batchOf(5, { positions: Int32Array.from(f['positions']!) }));
  checkClose(t, out.data, f['out']!);
  t.end();
});

function emptyCache(numSlots: number, dtype: KvCache['dtype'] = 'f32'): KvCache {
  const layer = () => new Float32Array(numSlots * 16).fill(NaN);
  return { layers: [{ k: layer(), v: layer() }], blockSize: 4, dtype };
}

t.test('ropeAndCache rotates q and k and writes k and v to their slots', (t) => {
  const f = fixture('rope');
  const qkv = tensor(64, f['qkv']!);
  const slots = [9, 4, -1, 7, 12];
  const kv = emptyCache(16, 'bf16');
  const op = bound({ qkv, cosSin: tensor(8, f['cosSin']!) }, {}, { ...heads, layer: 0 });
  ropeAndCache(op, batchOf(5, { slotMapping: Int32Array.from(slots) }), kv);
  checkClose(t, qkv.data, f['out']!);
  for (const [token, slot] of slots.entries()) {
    if (slot < 0) continue;
    const k = qkv.data.slice(token * 64 + 32, token * 64 + 48);
    const v = qkv.data.slice(token * 64 + 48, token * 64 + 64);
    roundTo('bf16', k);
    roundTo('bf16', v);
    t.strictSame(kv.layers[0]!.k.slice(slot * 16, (slot + 1) * 16), k);
    t.strictSame(kv.layers[0]!.v.slice(slot * 16, (slot + 1) * 16), v);
  }
  t.ok(kv.layers[0]!.k.slice(0, 64).every(Number.isNaN), 'other slots are untouched');
  t.end();
});

t.test('attention over scattered blocks, full and with a window', (t) => {
  const f = fixture('attention');
  // 40 positions in 10 blocks of 4, in no order.
  const blockTable = Int32Array.from([3, 11, 1, 7, 10, 2, 5, 9, 4, 8]);
  const kv = emptyCache(48);
  for (let position = 0; position < 40; position++) {
    const slot = blockTable[position >> 2]! * 4 + (position & 3);
    kv.layers[0]!.k.set(f['k']!.slice(position * 16, (position + 1) * 16), slot * 16);
    kv.layers[0]!.v.set(f['v']!.slice(position * 16, (position + 1) * 16), slot * 16);
  }
  const qkv = tensor(64, new Float32Array(5 * 64));
  for (let token = 0; token < 5; token++)
    qkv.data.set(f['q']!.slice(token * 32, (token + 1) * 32), token * 64);
  const row = { blockTable } as Row;
  const batch = batchOf(5, {
    rows: [{ row } as BatchRow],
    positions: Int32Array.from([35, 36, 37, 38, 39]),
    slotMapping: new Int32Array(5).fill(1),
  });
  for (const [name, window] of [
    ['out', 0],
    ['outWindow', 9],
  ] as const) {
    const out = tensor(32, new Float32Array(160));
    const attrs = { ...heads, layer: 0, scale: f['scale'] as unknown as number, window };
    attention(bound({ out, qkv }, {}, attrs), batch, kv);
    checkClose(t, out.data, f[name]!);
  }
  t.end();
});

t.test('gatherLogitRows takes the rows of one pass', (t) => {
  const x = tensor(2, [0, 1, 10, 11, 20, 21, 30, 31]);
  const out = tensor(2, new Float32Array(4));
  const logitRows = [0, 1, 3].map((token) => ({ batchIndex: 0, token, promptPosition: -1 }));
  gatherLogitRows(bound({ out, x }), batchOf(4, { logitRows }), 2, 1);
  t.strictSame([...out.data], [10, 11, 30, 31]);
  t.end();
});

t.test('bf16 and f16 round as torch does, and widen back', (t) => {
  const f = fixture('float-formats');
  f['values']!.forEach((value, i) => {
    const x = Object.is(value, 0) && i === 1 ? -0 : value;
    t.equal(numberToBf16(x), f['bf16']![i], `bf16 ${x}`);
    t.equal(numberToF16(x), f['f16']![i], `f16 ${x}`);
  });
  const all = Array.from({ length: 65536 }, (_, bits) => bits);
  const changes = (widen: (bits: number) => number, narrow: (x: number) => number) =>
    all.filter((bits) => !Number.isNaN(widen(bits)) && narrow(widen(bits)) !== bits);
  t.strictSame(changes(bf16ToNumber, numberToBf16), []);
  t.strictSame(changes(f16ToNumber, numberToF16), []);
  t.ok(
    Number.isNaN(bf16ToNumber(numberToBf16(NaN))) && Number.isNaN(f16ToNumber(numberToF16(NaN))),
  );
  t.end();
});
