// How far the detokenizer is behind the engine: it acknowledges every step's outputs. Too far, and
// no more is scheduled; for too long, and it is as good as dead.

/** Steps that the detokenizer may be behind before no more are scheduled. */
export const maxUnacknowledgedSteps = 64;

export class Acknowledgements {
  private sentStep = 0;
  private acknowledgedStep = 0;
  /** Since when it has owed an answer; null = it owes none. */
  private owedSinceMs: number | null = null;

  sent(step: number, nowMs: number): void {
    // Steps before it, a long prompt's, had nothing to acknowledge.
    if (this.isAll) this.acknowledgedStep = step - 1;
    this.sentStep = step;
    if (!this.isAll) this.owedSinceMs ??= nowMs;
  }

  acknowledged(step: number, nowMs: number): void {
    this.acknowledgedStep = step;
    this.owedSinceMs = this.isAll ? null : nowMs;
  }

  /** A new detokenizer owes nothing. */
  reset(): void {
    this.acknowledgedStep = this.sentStep;
    this.owedSinceMs = null;
  }

  /** Whoever was not here to listen counts from now on. */
  forgive(nowMs: number): void {
    if (this.owedSinceMs !== null) this.owedSinceMs = nowMs;
  }

  /** Everything that was sent has been handled. */
  get isAll(): boolean {
    return this.acknowledgedStep >= this.sentStep;
  }

  /** Whether it is, or would be with `step` sent too. */
  isTooFarBehind(step = this.sentStep): boolean {
    return !this.isAll && step - this.acknowledgedStep > maxUnacknowledgedSteps;
  }

  /** Last step whose outputs were sent. */
  get lastSent(): number {
    return this.sentStep;
  }

  silentMs(nowMs: number): number {
    return this.owedSinceMs === null ? 0 : nowMs - this.owedSinceMs;
  }
}
