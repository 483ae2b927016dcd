// One log line every ten seconds while there is work: rates since the last line, and how full it is.
import type { Logger } from '../common/log.ts';
import type { EngineStatus } from '../common/wire/messages.ts';

const intervalMs = 10_000;

export class StatsLine {
  private readonly log: Logger;
  private last: { readonly status: EngineStatus; readonly ms: number } | null = null;

  constructor(log: Logger) {
    this.log = log;
  }

  /** `statusNow` is asked when a line is due: an idle server ticks for nothing most of the time. */
  tick(statusNow: () => EngineStatus, nowMs: number): void {
    this.last ??= { status: statusNow(), ms: nowMs };
    const { status: before, ms } = this.last;
    if (nowMs - ms < intervalMs) return;
    const status = statusNow();
    this.last = { status, ms: nowMs };
    if (status.step === before.step && status.numRunning + status.numWaiting === 0) return;
    const perSecond = (now: number, then: number) =>
      Math.round(((now - then) * 10_000) / (nowMs - ms)) / 10;
    const queries = status.prefixCacheQueries - before.prefixCacheQueries;
    const hits = status.prefixCacheHits - before.prefixCacheHits;
    this.log.info(
      {
        promptTokensPerSecond: perSecond(status.promptTokens, before.promptTokens),
        generationTokensPerSecond: perSecond(status.generationTokens, before.generationTokens),
        running: status.numRunning,
        waiting: status.numWaiting,
        kvCacheUsage: percent(status.kvCacheUsage),
        prefixCacheHitRate: percent(queries === 0 ? 0 : hits / queries),
        preemptions: status.numPreemptions - before.numPreemptions,
      },
      'stats',
    );
    const requests = status.numInvalidLogits - before.numInvalidLogits;
    if (requests > 0)
      this.log.warn({ requests }, 'logits were not numbers: the weights may be damaged');
  }
}

const percent = (share: number) => `${(share * 100).toFixed(1)}%`;
