// Runs a program of a few ops through the backend: buffers are written before a step and read after
// it. Outputs are surrounded by sentinels, so that a write beyond the end shows.
import { dtypeBytes, type Dtype, type Op, type Program } from '../../../kernels/program.ts';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import type { BackendLoad, WeightPart } from '../../../kernels/backend.ts';
import { narrow, widen } from '../../../kernels/reference/float-formats.ts';
import { blocksFor, defaultLoad, Harness } from './harness.ts';

export interface Matrix {
  readonly columns: number;
  readonly values: Float32Array;
}

/** Reproducible numbers in [-1, 1) (mulberry32). */
export function randomValues(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 31 - 1;
  });
}

/** Values as a part of dtype, and as the numbers that dtype then holds. */
export function storeAs(
  dtype: Dtype,
  values: Float32Array,
): { data: Uint8Array; held: Float32Array } {
  const data = new Uint8Array(narrow(dtype, values).slice().buffer);
  return { data, held: widen(dtype, data) };
}

export interface TestWeight {
  readonly shape: readonly number[];
  readonly dtype?: Dtype;
  readonly values: Float32Array;
}

export interface OpBuffer {
  readonly columns: number;
  readonly logits?: true;
  readonly f32?: true;
  readonly values?: Float32Array;
}

export interface OpRun {
  readonly ops: readonly Op[];
  /** Columns of each buffer; rows are tokens. Act buffers have actDtype, others are `f32`. */
  readonly buffers: readonly OpBuffer[];
  readonly actDtype?: Dtype;
  readonly weights?: readonly TestWeight[];
  readonly kv?: { numLayers: number; numKvHeads: number; headDim: number; dtype: Dtype };
  readonly window?: number;
  readonly vocabSize?: number;
  /** Token ids of each row; every row is one chunk. */
  readonly rows: readonly (readonly number[])[];
  /** Tokens of each row that were computed by earlier steps; default none. */
  readonly start?: number;
  readonly flags?: number;
  readonly variant?: CpuVariant;
  readonly numThreads?: number;
  readonly blockSize?: number;
}

const sentinel = 12345.5;
const guardRows = 1;

export function makeProgram(run: OpRun, maxNumTokens: number): Program {
  const actDtype = run.actDtype ?? 'f32';
  let offset = 0;
  const buffers = run.buffers.map((buffer, i) => {
    const rows = buffer.logits ? ('numLogits' as const) : ('numTokens' as const);
    const dtype = buffer.f32 ? 'f32' : actDtype;
    const spec = { name: `b${i}`, dtype, rows, columns: buffer.columns, offset };
    offset += Math.ceil((maxNumTokens * buffer.columns * 4) / 256) * 256;
    return spec;
  });
  const kvGroups = run.kv ? [{ ...run.kv, window: run.window ?? 0 }] : [];
  return {
    ops: run.ops,
    buffers,
    weights: (run.weights ?? []).map((weight, i) => ({
      name: `w${i}`,
      dtype: weight.dtype ?? 'f32',
      shape: weight.shape,
      sources: [],
      constant: null,
      interleave: 0,
    })),
    kvGroups,
    vocabSize: run.vocabSize ?? 1000,
    actDtype,
    arenaBytes: offset,
    maxNumTokens,
    maxNumLogits: maxNumTokens,
  };
}

export function makePart(weight: TestWeight): WeightPart {
  const dtype = weight.dtype ?? 'f32';
  const { data } = storeAs(dtype, weight.values);
  const numColumns = weight.shape[1] ?? 1;
  return { dtype, numRows: data.length / numColumns / dtypeBytes[dtype], numColumns, data };
}

/** Every buffer after one step; throws if a row beyond the step's was written. `load`: on what. */
export async function runOps(
  run: OpRun,
  load: (load: BackendLoad) => Promise<Harness> = (each) => Harness.load(each, run.variant),
): Promise<Float32Array[]> {
  const start = run.start ?? 0;
  const numTokens = run.rows.reduce((sum, row) => sum + row.length - start, 0);
  const program = makeProgram(run, numTokens + guardRows);
  const harness = await load({
    ...defaultLoad,
    numThreads: run.numThreads ?? 2,
    numBlocks: 600,
    maxModelLen: 16384,
    blockSize: run.blockSize ?? 16,
    program,
    weights: (run.weights ?? []).map((weight) => [makePart(weight)]),
  });
  try {
    run.buffers.forEach((buffer, i) => {
      const all = new Float32Array((numTokens + guardRows) * buffer.columns).fill(sentinel);
      if (buffer.values) all.set(buffer.values);
      harness.backend.writeBuffer(i, narrow(program.buffers[i]!.dtype, all));
    });
    let block = 1;
    const rows = run.rows.map((tokens, row) => {
      const blocks = blocksFor(tokens.length, block, run.blockSize ?? 16);
      block += blocks.length;
      return { row, tokens, blocks };
    });
    await harness.step(
      rows,
      rows.map(({ row, tokens }) => ({
        row,
        start,
        count: tokens.length - start,
        flags: run.flags ?? 0,
      })),
    );
    return run.buffers.map((buffer, i) => {
      const { dtype } = program.buffers[i]!;
      const all = widen(dtype, new Uint8Array(harness.backend.readBuffer(i)));
      const [untouched] = storeAs(dtype, Float32Array.of(sentinel)).held;
      const used = buffer.logits ? run.rows.length : numTokens;
      for (const value of all.subarray(used * buffer.columns))
        if (value !== untouched) throw new Error(`buffer ${i} was written beyond its rows`);
      return all.slice(0, used * buffer.columns);
    });
  } finally {
    await harness.close();
  }
}

/** Square error of `actual` relative to the square size of `wanted`; NaN and infinity fail. */
export function normalizedError(actual: Float32Array, wanted: ArrayLike<number>): number {
  let error = 0;
  let size = 1e-30;
  for (let i = 0; i < actual.length; i++) {
    if (!Number.isFinite(actual[i])) return Infinity;
    error += (actual[i]! - wanted[i]!) ** 2;
    size += wanted[i]! ** 2;
  }
  return error / size;
}

export const arg = {
  buffer: (buffer: number) => ({ buffer }),
  weight: (weight: number) => ({ weight }),
};
