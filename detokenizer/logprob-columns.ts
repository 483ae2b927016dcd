// Logprob entries that wait for being sent: columns, in the order of the tokens they belong to.
import { GrowableColumn } from '../common/growable-column.ts';

export class LogprobColumns {
  /** One per token: how many entries it has. */
  readonly count = new GrowableColumn(Uint32Array, 0);
  readonly ids = new GrowableColumn(Int32Array, 0);
  readonly logprobs = new GrowableColumn(Float32Array, 0);
  readonly ranks = new GrowableColumn(Int32Array, 0);

  /** A token with entries [from, to) of the sources. */
  add(ids: Int32Array, logprobs: Float32Array, ranks: Int32Array, from: number, to: number): void {
    this.count.push(to - from);
    this.ids.append(ids, from, to);
    this.logprobs.append(logprobs, from, to);
    this.ranks.append(ranks, from, to);
  }

  get byteLength(): number {
    return 12 * this.ids.length;
  }

  clear(): void {
    this.count.clear();
    this.ids.clear();
    this.logprobs.clear();
    this.ranks.clear();
  }
}
