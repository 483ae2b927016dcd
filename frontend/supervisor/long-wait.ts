// One thing that a supervisor waits for: said at once and again while it lasts, and given up in the
// end. Knows nothing of what is waited for.

/** How often it is said again. */
const reminderMs = 30_000;

export class LongWait {
  private timers: readonly NodeJS.Timeout[] = [];

  /** Nothing where it goes on already. */
  begin(say: () => void, timeoutMs: number, overdue: () => void): void {
    if (this.timers.length > 0) return;
    say();
    this.timers = [setInterval(say, reminderMs), setTimeout(overdue, timeoutMs)];
  }

  end(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers = [];
  }
}
