// Random weights for --load-format dummy: the right shapes without a checkpoint. The same seed
// makes the same model, over however many ranks. All weights of one row length are views of one
// array, each beginning elsewhere in it: a large model would take minutes to draw, and twice its
// memory to hold.
import type { WeightPart } from '../../kernels/backend.ts';
import { dtypeBytes, type Dtype, type Program } from '../../kernels/program.ts';
import { narrow } from '../../kernels/reference/float-formats.ts';
import { partsOf } from './weight-parts.ts';

/** Prime, so that arrays longer than it do not repeat in step with their rows. */
const poolLength = 1_048_573;

export function dummyWeights(program: Program, seed: number): WeightPart[][] {
  const numbers = randomPool(seed);
  const next = random(seed ^ 0x5bd1e995);
  const arrays = new Map<string, Uint8Array>();
  const arrayOf = (dtype: Dtype, numColumns: number, isVector: boolean): Uint8Array => {
    const key = `${dtype} ${isVector ? 'vector' : numColumns}`;
    let bytes = arrays.get(key);
    if (!bytes) {
      const count = largestPart(program, dtype, numColumns, isVector);
      // Uniform in +-sqrt(3 / K) keeps the scale of activations; one-dimensional weights are 1.
      const scale = isVector ? 0 : Math.sqrt(3 / numColumns);
      const unit = narrow(
        dtype,
        numbers.map((x) => x * scale + (isVector ? 1 : 0)),
      );
      arrays.set(key, (bytes = repeat(bytesOf(unit), (count + poolLength) * dtypeBytes[dtype])));
    }
    return bytes;
  };
  // Of each tensor, by name: a weight may have several ranges of one.
  const starts = new Map<string, number>();
  const startOf = (tensor: string): number => {
    let start = starts.get(tensor);
    if (start === undefined) starts.set(tensor, (start = Math.floor(next() * poolLength)));
    return start;
  };
  return program.weights.map(({ dtype, sources }) =>
    sources.flatMap((source) => {
      const { tensor, tensorShape } = source;
      const bytes = dtypeBytes[dtype];
      const array = arrayOf(dtype, tensorShape[1] ?? 1, tensorShape.length === 1);
      const first = startOf(tensor);
      return partsOf(source, dtype, (begin, end) => {
        const start = ((first + begin / bytes) % poolLength) * bytes;
        return array.subarray(start, start + end - begin);
      });
    }),
  );
}

/** Elements of the largest part that views the array of such weights. */
function largestPart(
  program: Program,
  dtype: Dtype,
  numColumns: number,
  isVector: boolean,
): number {
  const alike = program.weights
    .filter((weight) => weight.dtype === dtype)
    .flatMap(({ sources }) => sources)
    .filter(({ tensorShape: [, columns] }) =>
      isVector ? columns === undefined : columns === numColumns,
    );
  const rows = alike.map(({ numRows }) => numRows);
  return Math.max(0, ...rows) * (isVector ? 1 : numColumns);
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** `unit` again and again, in copies of what is there already: each twice as long. */
function repeat(unit: Uint8Array, size: number): Uint8Array {
  const result = new Uint8Array(size);
  result.set(unit.subarray(0, Math.min(unit.length, size)));
  for (let done = unit.length; done < size; done *= 2)
    result.copyWithin(done, 0, Math.min(done, size - done));
  return result;
}

function randomPool(seed: number): Float32Array {
  const next = random(seed);
  return Float32Array.from({ length: poolLength }, () => next() * 2 - 1);
}

/** SplitMix32: uniform in [0, 1). */
function random(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let z = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
  };
}
