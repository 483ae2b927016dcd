// Counts for the Status that frontends get and for the log's stats line. Counters count from start.
import type { EngineStatus, StepOutput } from '../common/wire/messages.ts';
import type { Latencies } from './latencies.ts';
import type { Scheduler } from './scheduler.ts';
import type { Updater } from './update.ts';

export const statusIntervalMs = 250;
/** Time constant of the rate at which requests end. */
const rateWindowMs = 10_000;

export class StatusReporter {
  /** Smoothed over about ten seconds. */
  endedPerSecond = 0;
  private readonly scheduler: Scheduler;
  private readonly updater: Updater;
  private readonly latencies: Latencies;
  private numEnded = 0;
  private numEndedAtTick = 0;
  private numEndedAtStatus = 0;
  private tickMs = 0;
  private sentMs = 0;
  private progressMs = 0;
  private wasBusy = false;
  private deviceBusyUs = 0;
  private deviceIdleUs = 0;
  /** The last step that ended left requests behind. */
  private hadWork = false;

  constructor(scheduler: Scheduler, updater: Updater, latencies: Latencies) {
    this.scheduler = scheduler;
    this.updater = updater;
    this.latencies = latencies;
  }

  requestEnded(): void {
    this.numEnded++;
  }

  /** After its update. */
  stepEnded(nowMs: number, { startUs, endUs, deviceIdleUs }: StepOutput): void {
    this.progressMs = nowMs;
    this.deviceBusyUs += endUs - startUs;
    if (this.hadWork) this.deviceIdleUs += deviceIdleUs;
    this.hadWork = this.scheduler.numUnfinished > 0;
  }

  /** The Status to send now: every 250 ms while there is work, and once when it ends. */
  tick(nowMs: number): EngineStatus | null {
    const busy = this.scheduler.numUnfinished > 0;
    if (busy && !this.wasBusy) this.progressMs = nowMs;
    if (nowMs > this.tickMs) {
      const share = Math.min(1, (nowMs - this.tickMs) / rateWindowMs);
      const rate = ((this.numEnded - this.numEndedAtTick) * 1000) / (nowMs - this.tickMs);
      this.endedPerSecond += share * (rate - this.endedPerSecond);
      this.numEndedAtTick = this.numEnded;
      this.tickMs = nowMs;
    }
    // A request may come and end between two ticks: its end is told like any other.
    const hasEnded = this.wasBusy || this.numEnded !== this.numEndedAtStatus;
    const due = busy ? nowMs - this.sentMs >= statusIntervalMs : hasEnded;
    if (!due) return null;
    this.wasBusy = busy;
    this.numEndedAtStatus = this.numEnded;
    this.sentMs = nowMs;
    return this.status(nowMs);
  }

  status(nowMs: number): EngineStatus {
    const { running, waiting, kv, stats } = this.scheduler;
    const busy = this.scheduler.numUnfinished > 0;
    return {
      kind: 'status',
      step: this.scheduler.lastStepRetired,
      numRunning: running.length,
      numWaiting: waiting.length,
      kvCacheUsage: kv.pool.numUsed / (kv.pool.numBlocks - 1),
      numPreemptions: stats.numPreemptions,
      promptTokens: this.updater.numPromptTokens,
      generationTokens: this.updater.numGenerationTokens,
      prefixCacheQueries: stats.prefixCacheQueries,
      prefixCacheHits: stats.prefixCacheHits,
      deviceBusyMs: this.deviceBusyUs / 1000,
      deviceIdleMs: this.deviceIdleUs / 1000,
      cachedPromptTokens: this.updater.numCachedPromptTokens,
      numInvalidLogits: this.updater.numInvalidLogits,
      histograms: this.latencies.current,
      stalledMs: busy ? Math.max(0, Math.round(nowMs - this.progressMs)) : 0,
    };
  }
}
