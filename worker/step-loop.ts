// Moves steps between the engine's link and the backend: StepInput bodies go down as they came,
// results go up, and while a step is in flight a heartbeat says where the device is.
import { KernelError } from '../common/errors.ts';
import { emptyColumns } from '../common/wire/columns.ts';
import { stepOutputColumns } from '../common/wire/step.ts';
import type { StepInput, WorkerToEngine } from '../common/wire/messages.ts';
import type { Backend, StepResult } from '../kernels/backend.ts';
import { stepBody } from '../kernels/step-table.ts';

export const heartbeatMs = 500;

export interface StepLoopOptions {
  readonly backend: Backend;
  readonly rank: number;
  readonly generation: number;
  send(message: WorkerToEngine): void;
  /** The backend failed; the engine was told. */
  failed(error: Error): void;
}

export class StepLoop {
  private readonly options: StepLoopOptions;
  private readonly heartbeat: NodeJS.Timeout;
  private numInFlight = 0;
  private lastStep = -1;
  private hasFailed = false;

  constructor(options: StepLoopOptions) {
    this.options = options;
    options.backend.onStep = (result) => this.report(result);
    options.backend.onError = (error) => this.fail(error);
    this.heartbeat = setInterval(() => this.beat(), heartbeatMs);
    this.heartbeat.unref();
  }

  /** Steps that come after a failure are void. */
  submit({ step, numTokens, columns }: StepInput): void {
    if (this.hasFailed) return;
    this.lastStep = step;
    try {
      const { body, table } = stepBody(columns);
      this.options.backend.submit(step, numTokens, body, table);
      this.numInFlight++;
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  stop(): void {
    clearInterval(this.heartbeat);
  }

  /** Every rank has the same columns: rank 0 sends them. */
  private report(result: StepResult): void {
    this.numInFlight--;
    const { rank, generation } = this.options;
    const status = rank === 0 ? result : { ...result, columns: emptyColumns(stepOutputColumns) };
    this.options.send({ kind: 'stepOutput', generation, rank, ...status });
  }

  private beat(): void {
    if (this.numInFlight === 0 || this.hasFailed) return;
    const { step, opIndex } = this.options.backend.position();
    this.options.send({ kind: 'heartbeat', rank: this.options.rank, step, opIndex });
  }

  private fail(error: Error): void {
    if (this.hasFailed) return;
    this.hasFailed = true;
    this.stop();
    const isKernelError = error instanceof KernelError;
    const step = (isKernelError ? error.step : null) ?? this.lastStep;
    const op = isKernelError ? error.op : null;
    const { rank } = this.options;
    const blamed = isKernelError ? error.rank : null;
    const blamedRank = blamed === rank ? null : blamed;
    const { message } = error;
    this.options.send({ kind: 'workerFailed', rank, step, op, blamedRank, message });
    this.options.failed(error);
  }
}
