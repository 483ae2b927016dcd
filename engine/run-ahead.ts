// Keeps the workers busy: takes the results of steps in their order, then schedules and sends as many
// steps as may be in flight, without waiting for the results of those before. What no worker waits
// for comes after: the results' way to the detokenizer, and the prefix cache.
import type { AsyncDepth } from './async-depth.ts';
import type { DetokenizerOutbox } from './detokenizer-outbox.ts';
import type { Latencies } from './latencies.ts';
import type { EnginePorts } from './ports.ts';
import type { Scheduler } from './scheduler.ts';
import type { StatusReporter } from './status.ts';
import type { Timeline } from './timeline.ts';
import type { Updater } from './update.ts';
import type { WorkerFault, WorkerGroup } from './worker-group.ts';

export interface RunAheadParts {
  readonly scheduler: Scheduler;
  readonly depth: AsyncDepth;
  readonly workers: WorkerGroup;
  readonly updater: Updater;
  readonly outbox: DetokenizerOutbox;
  readonly status: StatusReporter;
  readonly latencies: Latencies;
  readonly timeline: Timeline;
  readonly ports: Pick<EnginePorts, 'toWorkers' | 'nowUs'>;
}

export class RunAhead {
  /** When the update under way began. */
  updateUs = 0;
  /** Rows of a step's results that were not sent to the detokenizer yet. */
  private hasRows = false;
  /** Nothing but the depth kept the last schedule() from going on. */
  private heldByDepth = false;
  private readonly parts: RunAheadParts;

  constructor(parts: RunAheadParts) {
    this.parts = parts;
  }

  /** Applies results that have come; stops at the first that cannot be one and returns the fault. */
  update(): WorkerFault | null {
    const { scheduler, workers } = this.parts;
    for (let record = scheduler.steps.oldest; record; record = scheduler.steps.oldest) {
      const { step, numRows } = record;
      const output = workers.takeOutput(step);
      if (!output) return null;
      if (!('kind' in output)) return output;
      if (output.columns.tokenId.length !== numRows)
        return { rank: 0, reason: `step ${step}: bad output` };
      const { depth, updater, status, latencies, timeline, ports } = this.parts;
      // Late: another step's rows are there already, and a message is about one step.
      if (this.hasRows) this.settle();
      const atUs = ports.nowUs();
      this.updateUs = atUs;
      const { startUs, endUs, deviceIdleUs } = output;
      latencies.step(record.numTokens);
      depth.executed(step, record.numTokens, endUs - startUs, deviceIdleUs);
      updater.update(record, output);
      status.stepEnded(atUs / 1000, output);
      this.hasRows = true;
      timeline.add('execute', startUs, endUs, step, numRows, deviceIdleUs);
      timeline.add('update', atUs, ports.nowUs(), step, numRows);
    }
    return null;
  }

  /** Schedules and sends steps until enough are in flight or there is nothing to run. */
  schedule(): void {
    const { scheduler, depth, workers, outbox, timeline, ports } = this.parts;
    const { steps } = scheduler;
    const isLate = this.heldByDepth;
    this.heldByDepth = false;
    while (!outbox.isTooFarBehind(scheduler.lastStepRetired)) {
      this.heldByDepth = depth.isReached(steps.length, steps.mostTokens);
      if (this.heldByDepth) return;
      const startUs = ports.nowUs();
      const wasIdle = steps.length === 0;
      const message = scheduler.schedule();
      if (!message) return;
      if (wasIdle) workers.wakeUp(startUs / 1000);
      const { step } = message;
      const numRows = message.columns.row.length;
      timeline.add('schedule', startUs, ports.nowUs(), step, numRows);
      ports.toWorkers(message);
      depth.sent(step, isLate);
      timeline.add('sent', ports.nowUs(), 0, step, numRows, scheduler.lastStepRetired);
    }
  }

  /** Sends the rows collected so far, if there are any, and enters full blocks into the cache. */
  settle(): void {
    const { scheduler, outbox, timeline, ports } = this.parts;
    const startUs = ports.nowUs();
    const { numRows } = outbox.rows;
    const step = scheduler.lastStepRetired;
    outbox.send(step, startUs / 1000);
    scheduler.cacheBlocks();
    this.hasRows = false;
    if (numRows > 0) timeline.add('settle', startUs, ports.nowUs(), step, numRows);
  }
}
