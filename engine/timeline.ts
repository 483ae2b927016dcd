// The last steps and request events in a ring of fixed size, given out in Chrome's trace format, so
// that any trace viewer shows how scheduling and execution overlap. Times are microseconds of
// CLOCK_MONOTONIC, which the workers use as well.

/** Kinds of entries: name in the viewer and lane (tid). */
const kinds = {
  schedule: { lane: 'engine', span: true },
  sent: { lane: 'engine', span: false },
  execute: { lane: 'worker', span: true },
  update: { lane: 'engine', span: true },
  settle: { lane: 'engine', span: true },
  added: { lane: 'requests', span: false },
  firstRun: { lane: 'requests', span: false },
  preempted: { lane: 'requests', span: false },
  ended: { lane: 'requests', span: false },
} as const;

export type TimelineKind = keyof typeof kinds;
const kindNames = Object.keys(kinds) as TimelineKind[];
const lanes = ['engine', 'worker', 'requests'] as const;

export interface TraceEvent {
  readonly name: string;
  /** X = span, i = instant, M = metadata. */
  readonly ph: 'X' | 'i' | 'M';
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly s?: 't';
  readonly args: Readonly<Record<string, string | number>>;
}

export class Timeline {
  private readonly capacity: number;
  private readonly kind: Uint8Array;
  private readonly startUs: Float64Array;
  private readonly endUs: Float64Array;
  /** Step of a step's entries; frontend and request of the others. */
  private readonly first: Float64Array;
  private readonly second: Float64Array;
  private readonly third: Float64Array;
  private numAdded = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.kind = new Uint8Array(capacity);
    this.startUs = new Float64Array(capacity);
    this.endUs = new Float64Array(capacity);
    this.first = new Float64Array(capacity);
    this.second = new Float64Array(capacity);
    this.third = new Float64Array(capacity);
  }

  /**
   * An entry about step `first` with `second` rows, or about a request (frontendId, requestId).
   * `third`: how long the device had waited before a step that was executed, in us; the last step
   * whose result was there when one was sent.
   */
  add(
    kind: TimelineKind,
    startUs: number,
    endUs: number,
    first: number,
    second: number,
    third = 0,
  ): void {
    if (this.capacity === 0) return;
    const at = this.numAdded++ % this.capacity;
    this.kind[at] = kindNames.indexOf(kind);
    this.startUs[at] = startUs;
    this.endUs[at] = endUs;
    this.first[at] = first;
    this.second[at] = second;
    this.third[at] = third;
  }

  /** Oldest first. */
  traceEvents(): TraceEvent[] {
    const events: TraceEvent[] = lanes.map((name, tid) => ({
      name: 'thread_name',
      ph: 'M',
      pid: 1,
      tid,
      args: { name },
    }));
    for (let i = Math.max(0, this.numAdded - this.capacity); i < this.numAdded; i++)
      events.push(this.eventAt(i % this.capacity));
    return events;
  }

  private eventAt(at: number): TraceEvent {
    const name = kindNames[this.kind[at]!]!;
    const { lane, span } = kinds[name];
    const [a, b] = [this.first[at]!, this.second[at]!];
    const base = { name, pid: 1, tid: lanes.indexOf(lane), ts: this.startUs[at]! };
    const ofStep = { step: a, numRows: b };
    const args =
      lane === 'requests'
        ? { frontendId: a, requestId: b }
        : name === 'execute'
          ? { ...ofStep, deviceIdleUs: this.third[at]! }
          : name === 'sent'
            ? { ...ofStep, afterStep: this.third[at]! }
            : ofStep;
    return span
      ? { ...base, ph: 'X', dur: this.endUs[at]! - base.ts, args }
      : { ...base, ph: 'i', s: 't', args };
  }
}
