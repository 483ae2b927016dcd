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

  /** Writes the numTop best ids, best first, ties to the lower id; -1 where there are no more. */
  top(ids: Int32Array, logprobs: Float32Array, offset: number, numTop: number): void {
    let previous = Infinity;
    let previousId = -1;
    for (let k = 0; k < numTop; k++) {
      const id = this.next(previous, previousId);
      ids[offset + k] = id;
      logprobs[offset + k] = id < 0 ? -Infinity : this.logprob(id);
      if (id < 0) continue;
      previous = this.logits[id]!;
      previousId = id;
    }
  }

  /** The id that follows (value, id) in the order of the list, -1 at its end. */
  private next(value: number, id: number): number {
    let best = -1;
    this.logits.forEach((logit, other) => {
      const isAfter = logit < value || (logit === value && other > id);
      if (isAfter && (best < 0 || logit > this.logits[best]!)) best = other;
    });
    return best;
  }
}
