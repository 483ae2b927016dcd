// Waits until something holds: a condition that is looked at after every event.
import { setTimeout as sleep } from 'node:timers/promises';

export class Waiter {
  private waiting: (() => void)[] = [];

  /** Something has happened: every condition is looked at again. */
  wake(): void {
    const { waiting } = this;
    this.waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves when the condition holds or the time is over. */
  async until(condition: () => boolean, timeoutMs: number): Promise<void> {
    const controller = new AbortController();
    const over = sleep(timeoutMs, 'over', { signal: controller.signal }).catch(() => 'over');
    while (!condition()) {
      const event = new Promise<void>((resolve) => this.waiting.push(resolve));
      if ((await Promise.race([event, over])) === 'over') break;
    }
    controller.abort();
  }
}
