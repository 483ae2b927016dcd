// Counts of values by size, as Prometheus has them. Adding one allocates nothing.
import type { HistogramCounts } from '../common/wire/messages.ts';

export class Histogram {
  private readonly bounds: readonly number[];
  /** [bounds.length + 1] */
  private readonly counts: number[];
  private sum = 0;

  /** `bounds` rise; a value counts at the first bound that it does not exceed. */
  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  add(value: number): void {
    const { bounds, counts } = this;
    let at = 0;
    while (at < bounds.length && value > bounds[at]!) at++;
    counts[at]!++;
    this.sum += value;
  }

  /** The counts themselves, not a copy. */
  get current(): HistogramCounts {
    return { bounds: this.bounds, counts: this.counts, sum: this.sum };
  }
}
