// A program: the ops of one step over symbolic sizes, recorded once at load by a model file
// (worker/models), rewritten by passes, and handed to a backend in one call. Plain data.
import { opNames, ops, type ArgSpec, type OpName } from './ops.ts';

export const dtypes = ['f32', 'f16', 'bf16', 'i32', 'u8'] as const;
export type Dtype = (typeof dtypes)[number];
export const dtypeBytes: Readonly<Record<Dtype, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  i32: 4,
  u8: 1,
};

/** The symbolic sizes of a step. */
export const symbols = ['numTokens', 'numLogits'] as const;
export type SymbolicSize = (typeof symbols)[number];

/** A 2-d activation [rows, columns] in the arena, row-major. */
export interface BufferSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly rows: SymbolicSize;
  readonly columns: number;
  /**
   * Rows that it has room for, where a step may have more: what goes from a linear to
   * siluAndMul. A backend then runs these two for so many rows at a time, or as one.
   */
  readonly rowsAtOnce?: number;
  /** Byte offset in the arena (256-byte aligned), set by the arena planner; -1 before. */
  readonly offset: number;
}

/**
 * A weight as the program uses it: the rows of its sources, one after another. Checkpoint sources
 * are tensors by name; a constant carries its data (inverse frequencies and the like) and comes to
 * the backend without parts. A part may be stored in another float dtype than the weight's own: the
 * backend converts it.
 */
export interface WeightSpec {
  readonly name: string;
  readonly dtype: Dtype;
  /** [rows, columns], or [rows] */
  readonly shape: readonly number[];
  readonly sources: readonly WeightSource[];
  readonly constant: Float32Array | null;
  /** 0, or n: gate and up rows alternate in groups of n; siluAndMul honours it. */
  readonly interleave: number;
}

/**
 * Rows [rowStart, rowStart + numRows) of columns [columnStart, columnStart + numColumns) of a
 * checkpoint tensor; a vector is one column. Rows and columns beyond the tensor's last are zeros.
 */
export interface WeightSource {
  readonly tensor: string;
  /** Of the whole tensor, as the checkpoint must have it. */
  readonly tensorShape: readonly number[];
  readonly rowStart: number;
  readonly numRows: number;
  readonly columnStart: number;
  readonly numColumns: number;
}

/** An argument: index into buffers or weights. */
export type ArgRef = { readonly buffer: number } | { readonly weight: number };

export interface Op {
  readonly op: OpName;
  /** By the names of the op table; optional ones may be missing. */
  readonly args: Readonly<Record<string, ArgRef>>;
  readonly attrs: Readonly<Record<string, number>>;
}

/** Rows of the largest step that a buffer has room for. */
export function mostRows(program: Program, { rows, rowsAtOnce }: BufferSpec): number {
  const all = rows === 'numTokens' ? program.maxNumTokens : program.maxNumLogits;
  return Math.min(all, rowsAtOnce ?? all);
}

/** One pool of KV blocks; layers of a group share block ids. */
export interface KvGroupSpec {
  readonly numLayers: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly dtype: Dtype;
  /** 0 = full attention. */
  readonly window: number;
}

export interface Program {
  readonly ops: readonly Op[];
  readonly buffers: readonly BufferSpec[];
  readonly weights: readonly WeightSpec[];
  readonly kvGroups: readonly KvGroupSpec[];
  readonly vocabSize: number;
  readonly actDtype: Dtype;
  /** Set by the arena planner for these bounds. */
  readonly arenaBytes: number;
  readonly maxNumTokens: number;
  /**
   * A step may need more logit rows than this (prompt logprobs). The ops from gatherLogitRows on
   * then run several times, each for the next maxNumLogits rows; nothing they read from before is
   * overwritten by them.
   */
  readonly maxNumLogits: number;
}

/** Bytes of one block over all layers of a group: K and V of blockSize positions. */
export function blockBytes(group: KvGroupSpec, blockSize: number): number {
  return (
    group.numLayers * 2 * group.numKvHeads * blockSize * group.headDim * dtypeBytes[group.dtype]
  );
}

/**
 * The program as flat numbers for native backends. `ops` holds one record an op: op id, then one
 * ref for each argument of the op table in order (-1 missing, 2 * buffer, 2 * weight + 1); records
 * follow each other, each as long as its op says. `attrs` holds their attributes in the same order.
 * `buffers`: dtype, symbol, columns, offset, rows at once (0 = all of a step); `weights`: dtype, rows, columns (0 = 1-d), interleave.
 */
export interface FlatProgram {
  readonly ops: Int32Array;
  readonly attrs: Float64Array;
  readonly buffers: Float64Array;
  readonly weights: Float64Array;
  readonly kvGroups: Float64Array;
}

export function flattenProgram(program: Program): FlatProgram {
  const opWords: number[] = [];
  const attrs: number[] = [];
  for (const { op, args, attrs: values } of program.ops) {
    opWords.push(opNames.indexOf(op));
    for (const name in ops[op].args) {
      const ref = args[name];
      opWords.push(ref === undefined ? -1 : 'buffer' in ref ? ref.buffer * 2 : ref.weight * 2 + 1);
    }
    for (const name of ops[op].attrs as readonly string[]) attrs.push(values[name]!);
  }
  return {
    ops: Int32Array.from(opWords),
    attrs: Float64Array.from(attrs),
    buffers: Float64Array.from(
      program.buffers.flatMap((b) => [
        dtypes.indexOf(b.dtype),
        symbols.indexOf(b.rows),
        b.columns,
        b.offset,
        b.rowsAtOnce ?? 0,
      ]),
    ),
    weights: Float64Array.from(
      program.weights.flatMap((w) => [
        dtypes.indexOf(w.dtype),
        w.shape[0]!,
        w.shape[1] ?? 0,
        w.interleave,
      ]),
    ),
    kvGroups: Float64Array.from(
      program.kvGroups.flatMap((g) => [
        g.numLayers,
        g.numKvHeads,
        g.headDim,
        dtypes.indexOf(g.dtype),
        g.window,
      ]),
    ),
  };
}

export function argSpecs(op: OpName): Readonly<Record<string, ArgSpec>> {
  return ops[op].args;
}
