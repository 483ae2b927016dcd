// The engine's own record of each step in flight: which request each row of the batch is, and what
// was asked of it. StepOutput is mapped through this record, never through row ids.
import type { Request } from './request.ts';

export class StepRecord {
  step = 0;
  numRows = 0;
  numTokens = 0;
  /** [maxNumSeqs], the first numRows are valid. */
  readonly requests: (Request | null)[];
  /** [maxNumSeqs] stepFlags of each row. */
  readonly flags: Uint8Array;

  constructor(maxNumSeqs: number) {
    this.requests = new Array<Request | null>(maxNumSeqs).fill(null);
    this.flags = new Uint8Array(maxNumSeqs);
  }

  add(request: Request, count: number, flags: number): void {
    this.requests[this.numRows] = request;
    this.flags[this.numRows++] = flags;
    this.numTokens += count;
  }

  /** Forgets the rows, so that ended requests can be collected. */
  clear(): void {
    this.requests.fill(null, 0, this.numRows);
    this.numRows = 0;
    this.numTokens = 0;
  }
}

/** At most `depth` records in step order; all of them are reused. */
export class StepsInFlight {
  length = 0;
  private readonly records: readonly StepRecord[];
  private first = 0;

  constructor(depth: number, maxNumSeqs: number) {
    this.records = Array.from({ length: depth }, () => new StepRecord(maxNumSeqs));
  }

  get isFull(): boolean {
    return this.length === this.records.length;
  }

  /** Tokens of the largest one. */
  get mostTokens(): number {
    let most = 0;
    for (let i = 0; i < this.length; i++) most = Math.max(most, this.at(i).numTokens);
    return most;
  }

  get oldest(): StepRecord | null {
    return this.length === 0 ? null : this.records[this.first]!;
  }

  /** The empty record that push() would add. */
  get next(): StepRecord {
    return this.at(this.length);
  }

  push(step: number): void {
    this.next.step = step;
    this.length++;
  }

  shift(): void {
    this.records[this.first]!.clear();
    this.first = (this.first + 1) % this.records.length;
    this.length--;
  }

  at(index: number): StepRecord {
    return this.records[(this.first + index) % this.records.length]!;
  }
}
