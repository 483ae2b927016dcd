// Finds processes that stand still (stopped, or stuck in a loop): each one says all the time that its
// event loop turns, busy or idle. The limit is far above what a starved machine does to a healthy
// process, because who is found is killed; what a process owes by now is looked at by those to whom
// it owes, and sooner. Whoever was not there to listen blames nobody: it listens anew.
import { OwnPauses } from '../../common/own-pauses.ts';

export interface Watched {
  readonly name: string;
  readonly state: 'starting' | 'ready' | 'gone';
}

/** Times the limit: until it can speak a process reads its code, from a disk that may be slow. */
const startPatience = 2;

export class Liveness<P extends Watched> {
  private readonly limitMs: number;
  private readonly pauses = new OwnPauses();
  private readonly heardMs = new Map<P, number>();

  /** 0 = nobody is ever found. */
  constructor(limitMs: number) {
    this.limitMs = limitMs;
  }

  /** It has said something, whatever it was, or has just been started. */
  heard(process: P, nowMs: number): void {
    this.heardMs.set(process, nowMs);
  }

  forget(process: P): void {
    this.heardMs.delete(process);
  }

  /** Call about once a second; those that are found are forgotten. */
  tick(nowMs: number): { readonly process: P; readonly silentMs: number }[] {
    if (this.pauses.tick(nowMs))
      for (const process of this.heardMs.keys()) this.heardMs.set(process, nowMs);
    if (this.limitMs === 0) return [];
    const found = [...this.heardMs]
      .map(([process, heardMs]) => ({ process, silentMs: nowMs - heardMs }))
      .filter(
        ({ process: { state }, silentMs }) =>
          silentMs > (state === 'starting' ? startPatience : 1) * this.limitMs,
      );
    for (const { process } of found) this.forget(process);
    return found;
  }
}
