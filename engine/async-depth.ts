// How many steps may be in flight. With two the device has the next step while it executes one, and
// waits only for a host that takes longer than a step to answer. Short steps on a host whose
// processes do not always get a processor do wait, so the depth follows the waits that the worker
// reports: one deeper when they are more than a hundredth of the time, one less after a calm while.
// A new request stands behind each step ahead, and a row that has ended is in them for nothing, so
// they are not taken without need, nor behind a step that is much larger than others, nor past a
// time together.

/** Waits count beside the time of so many steps. */
const windowSteps = 64;
const mostWaiting = 0.01;
/** Steps without such a window until the depth goes back. */
const calmSteps = 1024;
/** What steps in flight may take together where they are more than the least. */
const mostAheadUs = 15_000;
/** Means follow the last steps of about so many. */
const meanSteps = 32;

export class AsyncDepth {
  /** Steps that may be in flight now. */
  current: number;
  private readonly least: number;
  private readonly most: number;
  /** Last step that something other than the depth had kept from being sent. */
  private lastFree = 0;
  private meanUs = 0;
  private meanTokens = 0;
  private waitUs = 0;
  /** Steps of this window, and since the depth was changed. */
  private numSteps = 0;
  private numCalm = 0;

  constructor(least: number, most: number) {
    this.least = least;
    this.most = most;
    this.current = least;
  }

  /** `mostTokens`: those of the largest step in flight. */
  isReached(numInFlight: number, mostTokens: number): boolean {
    return numInFlight >= (mostTokens > 2 * this.meanTokens ? this.least : this.current);
  }

  /** `isLate`: the step would have been sent before, had more been allowed in flight. */
  sent(step: number, isLate: boolean): void {
    if (!isLate) this.lastFree = step;
  }

  /** A step took `busyUs` on the device, which had waited for `waitUs` before it. */
  executed(step: number, numTokens: number, busyUs: number, waitUs: number): void {
    const share = this.meanUs === 0 ? 1 : 1 / meanSteps;
    this.meanUs += share * (busyUs - this.meanUs);
    this.meanTokens += share * (numTokens - this.meanTokens);
    if (step > this.lastFree) this.waitUs += waitUs;
    this.numSteps++;
    this.numCalm++;
    if (this.waitUs > mostWaiting * windowSteps * this.meanUs) this.change(1);
    else if (this.numCalm === calmSteps) this.change(-1);
    else if (this.numSteps === windowSteps) this.change(0);
  }

  /** Begins a new window. */
  private change(by: number): void {
    const fitting = Math.max(this.least, Math.floor(mostAheadUs / this.meanUs));
    this.current = Math.min(this.most, fitting, Math.max(this.least, this.current + by));
    if (by !== 0) this.numCalm = 0;
    this.numSteps = 0;
    this.waitUs = 0;
  }
}
