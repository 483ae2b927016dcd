// Raw logprobs, ranks and best ids of a row of logits (docs/sampling.md, section 1).

const tileIds = 1024;

/**
 * Sum over ids of exp(x - max) for the ids with x >= from: f32 terms, f64 sums, tiles of 1,024 ids
 * ascending. A masked id (-Infinity) adds 0.
 */
export function expSum(values: Float32Array, max: number, from = -Infinity): number {
  let sum = 0;
  for (let start = 0; start < values.length; start += tileIds) {
    const end = Math.min(start + tileIds, values.length);
    let tile = 0;
    for (let id = start; id < end; id++) {
      const value = values[id]!;
      if (value >= from) tile += Math.fround(Math.exp(Math.fround(value - max)));
    }
    sum += tile;
  }
  return sum;
}

/** Greatest value and, ties to the lower, its id. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let id = 1; id < values.length; id++) if (values[id]! > values[best]!) best = id;
  return best;
}

export class RowLogprobs {
  private readonly logits: Float32Array;
  private readonly max: number;
  private readonly logSum: number;

  constructor(logits: Float32Array) {
    this.logits = logits;
    this.max = logits[argmax(logits)]!;
    this.logSum = Math.log(expSum(logits, this.max));
  }

  logprob(id: number): number {
    return Math.fround(this.logits[id]! - this.max - this.logSum);
  }

  /** 1 + the number of ids with a greater logit. */
  rank(id: number): number {
    const logit = this.logits[id]!;
    let rank = 1;
    for (const other of this.logits) if (other > logit) rank++;
    return rank;
  }

  /** The n best ids, or all there are: best first, ties to the lower id. */
  best(n: number): Int32Array {
    const { logits } = this;
    // By hand: two masked ids must compare as equal, and -Infinity less itself is NaN.
    const order = (a: number, b: number) =>
      logits[a]! > logits[b]! ? -1 : logits[a]! < logits[b]! ? 1 : a - b;
    return n <= 0 ? new Int32Array(0) : Int32Array.from(logits.keys()).sort(order).slice(0, n);
  }
}
