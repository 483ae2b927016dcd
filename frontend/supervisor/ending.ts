// How processes end, in which order and with how much patience: drained, then stopped, then killed;
// frontends before the rest, so that clients are told before their answers stop.
import { performance } from 'node:perf_hooks';
import type { Child } from './child.ts';
import type { Children } from './children.ts';
import type { Waiter } from './waiter.ts';

/** What a process may take to end after `stop`, and streams to be told of a lost engine. */
const stopGraceMs = 2000;
const streamEndGraceMs = 1000;
/** What the answers of the last drained requests may take to leave. */
const drainSlackMs = 2000;

export class Ending {
  private readonly children: Children;
  private readonly waiter: Waiter;

  constructor(children: Children, waiter: Waiter) {
    this.children = children;
    this.waiter = waiter;
  }

  /**
   * What frontends have taken is served first. Then the engine ends what is left (also of foreign
   * frontends) when the time is over.
   */
  async drain(timeoutMs: number): Promise<void> {
    const { children, waiter } = this;
    const deadline = performance.now() + timeoutMs;
    const left = () => Math.max(0, Math.round(deadline - performance.now()));
    const frontends = children.ofRole('frontend');
    for (const child of frontends) children.tell(child, { kind: 'drain', timeoutMs: left() });
    await waiter.until(() => areDrained(frontends), left());
    const engines = children.ofRole('engine');
    for (const child of engines) children.tell(child, { kind: 'drain', timeoutMs: left() });
    const all = [...frontends, ...engines];
    await waiter.until(() => areDrained(all), left() + drainSlackMs);
  }

  /** Ends every process; with `tellStreams` open streams get a moment to say what happened. */
  async stopAll(tellStreams: boolean): Promise<void> {
    const { children, waiter } = this;
    const frontends = [...children.alive].filter(({ role }) => role === 'frontend');
    const serving = frontends.filter(({ state }) => state === 'ready');
    if (tellStreams && serving.length > 0) {
      for (const child of serving) children.tell(child, { kind: 'drain', timeoutMs: 0 });
      await waiter.until(() => areDrained(serving), streamEndGraceMs);
    }
    await this.stop(frontends);
    await this.stop([...children.alive]);
  }

  /** Overtakes an end that is under way. */
  async killAll(): Promise<void> {
    const { alive } = this.children;
    for (const child of alive) child.kill();
    await this.waiter.until(() => alive.size === 0, stopGraceMs);
  }

  private async stop(stopping: readonly Child[]): Promise<void> {
    const { alive } = this.children;
    const areGone = () => stopping.every((child) => !alive.has(child));
    for (const child of stopping) {
      // One that is still starting has nothing to close and may be deaf.
      if (child.state === 'ready') this.children.tell(child, { kind: 'stop' });
      else child.kill();
    }
    await this.waiter.until(areGone, stopGraceMs);
    for (const child of stopping) if (alive.has(child)) child.kill();
    await this.waiter.until(areGone, stopGraceMs);
  }
}

function areDrained(children: readonly Child[]): boolean {
  return children.every((child) => child.isDrained || child.state === 'gone');
}
