// What a signal asks for. The first decides: SIGTERM drains, SIGINT stops. A terminal or npm may
// deliver the same key press twice within milliseconds, so that a second signal counts only after
// 500 ms; then it ends the server at once.

export const secondSignalMs = 500;

export type SignalAction = 'drain' | 'interrupt' | 'kill' | 'ignore';
export type StopSignal = 'SIGTERM' | 'SIGINT' | 'SIGHUP';

export class SignalPolicy {
  private firstMs: number | null = null;

  /** `nowMs` is monotonic. */
  next(signal: StopSignal, nowMs: number): SignalAction {
    if (this.firstMs === null) {
      this.firstMs = nowMs;
      return signal === 'SIGTERM' ? 'drain' : 'interrupt';
    }
    return nowMs - this.firstMs < secondSignalMs ? 'ignore' : 'kill';
  }
}

/** Exit code of a server that a signal stopped before its work was done. */
export const signalExitCodes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** What the server does then, for its log. */
export const actionWords = {
  drain: 'draining',
  interrupt: 'stopping',
  kill: 'ending at once',
} as const;
