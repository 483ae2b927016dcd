// The ops that work on one token's vector at a time: norms, activation, gather.
import type { Batch } from './batch.ts';
import { attr, tensor, weight, type BoundOp } from './bound-op.ts';

/** out = x / sqrt(mean(x^2) + eps) * weight over [start, start + n), may be in place. */
function normalize(
  out: Float32Array,
  x: Float32Array,
  start: number,
  w: Float32Array,
  eps: number,
): void {
  let sum = 0;
  for (let i = 0; i < w.length; i++) sum += x[start + i]! ** 2;
  const scale = 1 / Math.sqrt(sum / w.length + eps);
  for (let i = 0; i < w.length; i++) out[start + i] = x[start + i]! * scale * w[i]!;
}

export function rmsNorm(op: BoundOp, _batch: Batch, numRows: number): void {
  const { data: out, columns } = tensor(op, 'out');
  const { data: x } = tensor(op, 'x');
  for (let m = 0; m < numRows; m++)
    normalize(out, x, m * columns, weight(op, 'weight'), attr(op, 'eps'));
}

/** qkv [T, (Q + 2G) * D], in place; V is left alone. */
export function headRmsNorm(op: BoundOp, { numTokens }: Batch): void {
  const { data, columns } = tensor(op, 'qkv');
  const numHeads = attr(op, 'numHeads');
  const headDim = attr(op, 'headDim');
  for (let t = 0; t < numTokens; t++)
    for (let head = 0; head < numHeads + attr(op, 'numKvHeads'); head++) {
      const w = weight(op, head < numHeads ? 'qWeight' : 'kWeight');
      normalize(data, data, t * columns + head * headDim, w, attr(op, 'eps'));
    }
}

/** out[i] = silu(gate[i]) * up[i] */
export function siluAndMul(op: BoundOp, { numTokens }: Batch): void {
  const { data: out, columns } = tensor(op, 'out');
  const { data: x } = tensor(op, 'gateUp');
  const group = op.interleave || columns;
  for (let t = 0; t < numTokens; t++)
    for (let i = 0; i < columns; i++) {
      const at = t * 2 * columns + Math.floor(i / group) * 2 * group + (i % group);
      const gate = x[at]!;
      out[t * columns + i] = (gate / (1 + Math.exp(-gate))) * x[at + group]!;
    }
}

/** out[l] = x[token of logit row first + l] */
export function gatherLogitRows(
  op: BoundOp,
  { logitRows }: Batch,
  numRows: number,
  first: number,
): void {
  const { data: out, columns } = tensor(op, 'out');
  const { data: x } = tensor(op, 'x');
  for (let l = 0; l < numRows; l++) {
    const { token } = logitRows[first + l]!;
    out.set(x.subarray(token * columns, (token + 1) * columns), l * columns);
  }
}
