// Rotary positions, the paged cache, and attention over it.
import type { Dtype } from '../program.ts';
import type { Batch } from './batch.ts';
import { slotOf } from './batch.ts';
import { attr, tensor, weight, type BoundOp } from './bound-op.ts';
import { roundTo } from './float-formats.ts';

/** K and V of one layer, each [numSlots, numKvHeads * headDim]; slot = blockId * blockSize + offset. */
export interface LayerCache {
  readonly k: Float32Array;
  readonly v: Float32Array;
}

export interface KvCache {
  readonly layers: readonly LayerCache[];
  readonly blockSize: number;
  readonly dtype: Dtype;
}

/** out[t] = cos of each angle, then sin; angle = f32(position * invFreq) */
export function ropeCosSin(op: BoundOp, { positions, numTokens }: Batch): void {
  const { data: out, columns } = tensor(op, 'out');
  const invFreq = weight(op, 'invFreq');
  const factor = attr(op, 'factor');
  for (let t = 0; t < numTokens; t++)
    invFreq.forEach((frequency, i) => {
      const angle = Math.fround(positions[t]! * frequency);
      out[t * columns + i] = Math.cos(angle) * factor;
      out[t * columns + columns / 2 + i] = Math.sin(angle) * factor;
    });
}

/** Rotates q and k in place, then writes k and v to the cache. */
export function ropeAndCache(op: BoundOp, batch: Batch, kv: KvCache): void {
  const { data: qkv, columns, dtype } = tensor(op, 'qkv');
  const { data: cosSin } = tensor(op, 'cosSin');
  const headDim = attr(op, 'headDim');
  const numHeads = attr(op, 'numHeads');
  const numKvHeads = attr(op, 'numKvHeads');
  const { k, v } = kv.layers[attr(op, 'layer')]!;
  const kvColumns = numKvHeads * headDim;
  for (let t = 0; t < batch.numTokens; t++) {
    const start = t * columns;
    for (let head = 0; head < numHeads + numKvHeads; head++)
      rotate(qkv, start + head * headDim, cosSin, t * headDim, headDim);
    roundTo(dtype, qkv.subarray(start, start + columns));
    const slot = batch.slotMapping[t]!;
    if (slot < 0) continue;
    const kStart = start + numHeads * headDim;
    const kOut = k.subarray(slot * kvColumns, (slot + 1) * kvColumns);
    const vOut = v.subarray(slot * kvColumns, (slot + 1) * kvColumns);
    kOut.set(qkv.subarray(kStart, kStart + kvColumns));
    vOut.set(qkv.subarray(kStart + kvColumns, kStart + 2 * kvColumns));
    roundTo(kv.dtype, kOut);
    roundTo(kv.dtype, vOut);
  }
}

/** Element i pairs with i + headDim / 2. */
function rotate(x: Float32Array, start: number, cosSin: Float32Array, angles: number, dim: number) {
  const half = dim / 2;
  for (let i = 0; i < half; i++) {
    const cos = cosSin[angles + i]!;
    const sin = cosSin[angles + half + i]!;
    const a = x[start + i]!;
    const b = x[start + half + i]!;
    x[start + i] = a * cos - b * sin;
    x[start + half + i] = b * cos + a * sin;
  }
}

/** out[t][h] = softmax(scale * q . K) V over positions 0..position[t], or the last `window`. */
export function attention(op: BoundOp, batch: Batch, kv: KvCache): void {
  const { data: out, columns: outColumns } = tensor(op, 'out');
  const { data: qkv, columns } = tensor(op, 'qkv');
  const headDim = attr(op, 'headDim');
  const numHeads = attr(op, 'numHeads');
  const headsPerKvHead = numHeads / attr(op, 'numKvHeads');
  const kvColumns = attr(op, 'numKvHeads') * headDim;
  const window = attr(op, 'window');
  const { k, v } = kv.layers[attr(op, 'layer')]!;
  for (let t = 0; t < batch.numTokens; t++) {
    const { row } = batch.rows[batch.rowOfToken[t]!]!;
    if (batch.slotMapping[t]! < 0) continue;
    const position = batch.positions[t]!;
    const first = window > 0 ? Math.max(0, position - window + 1) : 0;
    const slots = Array.from({ length: position - first + 1 }, (_, i) =>
      slotOf(row, first + i, kv.blockSize),
    );
    for (let head = 0; head < numHeads; head++) {
      const kvHead = Math.floor(head / headsPerKvHead) * headDim;
      const q = qkv.subarray(t * columns + head * headDim, t * columns + (head + 1) * headDim);
      const weights = softmax(scores(q, k, slots, kvColumns, kvHead, attr(op, 'scale')));
      const sum = new Float64Array(headDim);
      slots.forEach((slot, i) => {
        const at = slot * kvColumns + kvHead;
        for (let d = 0; d < headDim; d++) sum[d]! += weights[i]! * v[at + d]!;
      });
      out.set(sum, t * outColumns + head * headDim);
    }
  }
}

function scores(
  q: Float32Array,
  k: Float32Array,
  slots: readonly number[],
  kvColumns: number,
  kvHead: number,
  scale: number,
): Float64Array {
  return Float64Array.from(slots, (slot) => {
    const at = slot * kvColumns + kvHead;
    let sum = 0;
    for (let d = 0; d < q.length; d++) sum += q[d]! * k[at + d]!;
    return sum * scale;
  });
}

function softmax(x: Float64Array): Float64Array {
  const max = x.reduce((a, b) => Math.max(a, b), -Infinity);
  const terms = x.map((value) => Math.exp(value - max));
  const sum = terms.reduce((a, b) => a + b, 0);
  return terms.map((value) => value / sum);
}
