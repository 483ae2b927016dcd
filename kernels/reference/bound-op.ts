// An op of the program with its arguments resolved to memory, as the op functions take it.
import type { Dtype, SymbolicSize } from '../program.ts';

/** Row-major [rows, columns] in the arena, at full capacity; a step uses the first rows. */
export interface BoundTensor {
  readonly data: Float32Array;
  readonly rows: SymbolicSize;
  readonly columns: number;
  readonly dtype: Dtype;
}

export interface BoundOp {
  readonly tensors: Readonly<Record<string, BoundTensor>>;
  /** Widened, row-major. */
  readonly weights: Readonly<Record<string, Float32Array>>;
  readonly attrs: Readonly<Record<string, number>>;
  /** siluAndMul: groups in which gate and up columns alternate; 0 = gate columns, then up. */
  readonly interleave: number;
}

export function tensor(op: BoundOp, name: string): BoundTensor {
  return op.tensors[name]!;
}

export function weight(op: BoundOp, name: string): Float32Array {
  return op.weights[name]!;
}

export function attr(op: BoundOp, name: string): number {
  return op.attrs[name]!;
}
