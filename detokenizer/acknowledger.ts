// Tells the engine how far the detokenizer has come: not step by step, because every message wakes two
// processes, but soon enough that the engine neither stops scheduling (at 64 steps) nor worries.

const maxUnacknowledgedSteps = 16;
const maxDelayMs = 100;

export class Acknowledger {
  private readonly send: (step: number) => void;
  private step = 0;
  private numUnacknowledged = 0;
  private timer: NodeJS.Timeout | null = null;

  /** `send`: every step up to this one was handled. */
  constructor(send: (step: number) => void) {
    this.send = send;
  }

  handled(step: number): void {
    this.step = step;
    if (++this.numUnacknowledged === maxUnacknowledgedSteps) this.acknowledge();
    // Left running when the number is reached first: it then finds less to do, or nothing.
    else
      this.timer ??= setTimeout(() => {
        this.timer = null;
        this.acknowledge();
      }, maxDelayMs);
  }

  /** The engine that would hear it is gone. */
  forget(): void {
    this.numUnacknowledged = 0;
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
  }

  private acknowledge(): void {
    if (this.numUnacknowledged === 0) return;
    this.numUnacknowledged = 0;
    this.send(this.step);
  }
}
