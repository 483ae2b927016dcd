// Whoever judges others by their silence must know when it was itself not there to listen: stopped
// (SIGSTOP, Ctrl-Z and fg), or without a processor. Its own timer tells.

/** Silence of a process that should speak for this long means that it is as good as dead. */
export const silenceLimitMs = 5000;

/** How often a process says that it is there, whatever it does. */
export const aliveIntervalMs = 1000;

/** A timer that is later than this was not late: its process stood still. */
const pauseMs = silenceLimitMs / 2;

export class OwnPauses {
  private lastMs: number | null = null;

  /**
   * Call with every tick; true if this process stood still since the last one. Nothing is known of the
   * time before the first tick, so that is true too: it may be late because of a stop.
   */
  tick(nowMs: number): boolean {
    const stood = this.lastMs === null || nowMs - this.lastMs > pauseMs;
    this.lastMs = nowMs;
    return stood;
  }
}
