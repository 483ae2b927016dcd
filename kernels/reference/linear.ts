// linear and embedding: the ops that read large weights.
import type { Batch } from './batch.ts';
import { attr, tensor, weight, type BoundOp } from './bound-op.ts';

/** out[t] = weight[tokenId[t] - firstId], or zeros; weight [R, H] */
export function embedding(op: BoundOp, { tokenIds, numTokens }: Batch): void {
  const { data: out, columns } = tensor(op, 'out');
  const table = weight(op, 'weight');
  const firstId = attr(op, 'firstId');
  for (let t = 0; t < numTokens; t++) {
    const begin = (tokenIds[t]! - firstId) * columns;
    const to = out.subarray(t * columns, (t + 1) * columns);
    if (begin < 0 || begin >= table.length) to.fill(0);
    else to.set(table.subarray(begin, begin + columns));
  }
}

/** out[m][n] = sum over k of x[m][k] * weight[n][k] (+ bias[n]) (+ residual[m][n]) */
export function linear(op: BoundOp, _batch: Batch, numRows: number): void {
  const { data: out, columns: numOut } = tensor(op, 'out');
  const { data: x, columns: numIn } = tensor(op, 'x');
  const w = weight(op, 'weight');
  const bias = op.weights['bias'];
  const residual = op.tensors['residual']?.data;
  for (let n = 0; n < numOut; n++)
    for (let m = 0; m < numRows; m++) {
      let sum = dot(x, m * numIn, w, n * numIn, numIn);
      if (bias) sum += bias[n]!;
      if (residual) sum += residual[m * numOut + n]!;
      out[m * numOut + n] = sum;
    }
}

/** Four sums, so that the additions need not wait for each other. */
function dot(a: Float32Array, aStart: number, b: Float32Array, bStart: number, n: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    s0 += a[aStart + i]! * b[bStart + i]!;
    s1 += a[aStart + i + 1]! * b[bStart + i + 1]!;
    s2 += a[aStart + i + 2]! * b[bStart + i + 2]!;
    s3 += a[aStart + i + 3]! * b[bStart + i + 3]!;
  }
  for (; i < n; i++) s0 += a[aStart + i]! * b[bStart + i]!;
  return s0 + s1 + (s2 + s3);
}
