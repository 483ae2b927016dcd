// Random weights for --load-format dummy: the right shapes without a checkpoint. The same seed
// makes the same weights. Rows are cut out of one pool of random numbers, because drawing each
// number of a large model would take minutes.
import type { WeightPart } from '../../kernels/backend.ts';
import type { Program, WeightSpec } from '../../kernels/program.ts';
import { narrow } from '../../kernels/reference/float-formats.ts';

/** Prime, so that weights longer than it do not repeat in step with their rows. */
const poolLength = 1_048_573;

export function dummyWeights(program: Program, seed: number): WeightPart[][] {
  const pool = randomPool(seed);
  const next = random(seed ^ 0x5bd1e995);
  return program.weights.map((weight) =>
    weight.sources.map(({ numRows }) => dummyPart(weight, numRows, pool, next)),
  );
}

function dummyPart(
  weight: WeightSpec,
  numRows: number,
  pool: Float32Array,
  next: () => number,
): WeightPart {
  const isNorm = weight.shape.length === 1;
  const numColumns = weight.shape[1] ?? 1;
  const count = numRows * numColumns;
  // Uniform in +-sqrt(3 / K) keeps the scale of activations; one-dimensional weights are 1.
  const scale = isNorm ? 0 : Math.sqrt(3 / numColumns);
  const start = Math.floor(next() * (poolLength - Math.min(count, poolLength)));
  const values = pool.slice(start, start + count).map((x) => x * scale + (isNorm ? 1 : 0));
  const source = narrow(weight.dtype, values);
  const data = new Uint8Array(count * source.BYTES_PER_ELEMENT);
  const target =
    source instanceof Uint16Array ? new Uint16Array(data.buffer) : new Float32Array(data.buffer);
  for (let to = 0; to < count; to += source.length)
    target.set(source.subarray(0, Math.min(source.length, count - to)), to);
  return { dtype: weight.dtype, numRows, numColumns, data };
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
