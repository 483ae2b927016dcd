// Finds out an engine that has work and says nothing: it would say something every 250 ms.
import { OwnPauses, silenceLimitMs } from '../common/own-pauses.ts';

export interface Watched {
  /** For how long the engine has owed us a word; 0 when it owes none. */
  readonly engineSilentMs: number;
}

export class EngineWatch {
  private readonly client: Watched;
  private readonly lost: (reason: string) => void;
  private readonly pauses = new OwnPauses();
  /** What was silence before this is not the engine's. */
  private listeningSinceMs = 0;
  private isOver = false;

  /** `lost` is called once. */
  constructor(client: Watched, lost: (reason: string) => void) {
    this.client = client;
    this.lost = lost;
  }

  /** Call a few times a second. */
  tick(nowMs: number): void {
    if (this.pauses.tick(nowMs)) this.listeningSinceMs = nowMs;
    const silentMs = Math.min(this.client.engineSilentMs, nowMs - this.listeningSinceMs);
    if (this.isOver || silentMs <= silenceLimitMs) return;
    this.isOver = true;
    this.lost(`no sign of life for ${Math.round(silentMs)} ms`);
  }
}
