// The engine without its sockets: messages come in by calls and go out through ports, time is handed
// in. run() is the loop's body: what came in has been applied (aborts and stops at once), then
// update(), schedule(), send.
import type { EngineSlice } from '../common/config.ts';
import { RequestError, type ErrorInfo } from '../common/errors.ts';
import { OwnPauses, silenceLimitMs } from '../common/own-pauses.ts';
import {
  type AddRequest,
  type DetokenizerToEngine,
  type EngineStatus,
  type EngineToFrontend,
  type StepInput,
  type TokenOutputs,
  type WorkerReady,
  type WorkerToEngine,
} from '../common/wire/messages.ts';
import { Acknowledgements } from './acknowledgements.ts';
import { Intake } from './intake.ts';
import { Latencies } from './latencies.ts';
import type { Request } from './request.ts';
import { RequestTable } from './request-table.ts';
import { Scheduler } from './scheduler.ts';
import { StatusReporter } from './status.ts';
import { Timeline } from './timeline.ts';
import { TokenOutputsBuilder } from './token-outputs.ts';
import { Updater } from './update.ts';
import { WorkerGroup, type WorkerFault } from './worker-group.ts';

export interface EnginePorts {
  toFrontend(frontendId: number, message: EngineToFrontend): void;
  toAllFrontends(message: EngineToFrontend): void;
  /** To those whom it concerns. */
  statusToFrontends(message: EngineStatus): void;
  /** To every rank. The columns are reused: they are valid during the call. */
  toWorkers(message: StepInput): void;
  /** The columns are reused: they are valid during the call. */
  toDetokenizer(message: TokenOutputs): void;
  /** Nothing counts any more that the workers which are connected now may still send. */
  forgetWorkers(): void;
  /** The worker must be killed and started again, and with it all others. */
  replaceWorker(rank: number, generation: number, reason: string): void;
  /** The detokenizer must be killed and started again. */
  replaceDetokenizer(reason: string): void;
  /** run() should be called soon; asked for once until it was. */
  wake(): void;
  /** CLOCK_MONOTONIC, as workers report it. */
  nowUs(): number;
}

const timelineCapacity = 16_384;

export class EngineCore {
  readonly scheduler: Scheduler;
  readonly requests = new RequestTable();
  readonly workers: WorkerGroup;
  readonly timeline: Timeline;
  readonly status: StatusReporter;
  private readonly generation: number;
  private readonly ports: EnginePorts;
  private readonly intake: Intake;
  private readonly latencies = new Latencies();
  private readonly outputs = new TokenOutputsBuilder();
  private readonly updater: Updater;
  /** Requests are refused with this while set. */
  private closed: ErrorInfo | null = null;
  private detokenizerLost = false;
  private workersReady = true;
  private readonly acknowledgements = new Acknowledgements();
  private readonly pauses = new OwnPauses();
  private awake = false;
  /** When the update under way began. */
  private updateUs = 0;

  /** `ready` is what the workers have in common; all of them are ready. */
  constructor(slice: EngineSlice, workers: WorkerGroup, ready: WorkerReady, ports: EnginePorts) {
    this.generation = slice.generation;
    this.workers = workers;
    this.ports = ports;
    this.timeline = new Timeline(slice.enableDebugTimeline ? timelineCapacity : 0);
    this.intake = new Intake(slice);
    this.scheduler = new Scheduler({
      config: slice.scheduler,
      numBlocks: ready.numBlocks,
      eosTokenIds: slice.model.eosTokenIds,
      generation: slice.generation,
    });
    this.updater = new Updater(this.scheduler, this.outputs, slice.model);
    this.updater.onEnd = (request) => {
      if (request.finishReason !== 'error') this.latencies.finished(request);
      this.forget(request);
    };
    this.updater.onToken = (request) => this.latencies.token(request, this.updateUs);
    this.status = new StatusReporter(this.scheduler, this.updater, this.latencies);
    this.scheduler.onPreempt = (request) => void this.mark('preempted', request);
    this.scheduler.onFirstRun = (request) => {
      request.firstRunUs = this.mark('firstRun', request);
    };
  }

  // ---------------------------------------------------------------- frontends

  frontendJoined(frontendId: number): void {
    this.requests.addFrontend(frontendId);
  }

  /** Its requests end; nobody is left to be told. */
  frontendLeft(frontendId: number): void {
    for (const request of this.requests.of(frontendId)) this.drop(request);
    this.requests.removeFrontend(frontendId);
    this.wake();
  }

  addRequest(frontendId: number, message: AddRequest): void {
    const { requestId, n } = message;
    try {
      if (this.closed) throw RequestError.from(this.closed);
      if (this.detokenizerLost)
        throw new RequestError('detokenizer_lost', 'the detokenizer is being restarted');
      const added = this.intake.add(frontendId, message, this.scheduler, this.requests);
      for (const request of added) request.arrivedUs = this.mark('added', request);
      this.ports.toFrontend(frontendId, { kind: 'accepted', requestId, n });
      this.wake();
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      this.ports.toFrontend(frontendId, {
        kind: 'rejected',
        requestId,
        n,
        error: error.info(),
      });
    }
  }

  abort(frontendId: number, requestIds: Uint32Array): void {
    for (const requestId of requestIds) {
      const request = this.requests.get(frontendId, requestId);
      if (!request) continue;
      this.outputs.row(request, 'abort');
      this.drop(request);
    }
    this.wake();
  }

  // ---------------------------------------------------------------- detokenizer

  detokenizerMessage(message: DetokenizerToEngine): void {
    if (message.kind === 'ack') {
      this.acknowledgements.acknowledged(message.step, this.nowMs());
      this.wake();
    } else if (message.kind === 'stopRequest') {
      const { frontendId, requestId } = message.columns;
      for (let i = 0; i < requestId.length; i++) {
        const request = this.requests.get(frontendId[i]!, requestId[i]!);
        // It has sent the terminal message itself.
        if (!request) continue;
        this.latencies.finished(request);
        this.drop(request);
      }
      this.wake();
    }
  }

  /** All accepted requests end with it: their text was there. Frontends end their own. */
  detokenizerGone(index: number, generation: number): void {
    this.detokenizerLost = true;
    for (const request of this.requests.all()) this.drop(request);
    // Whatever was not sent yet has no receiver.
    this.outputs.take(this.acknowledgements.lastSent, this.generation);
    this.ports.toAllFrontends({ kind: 'peerLost', role: 'detokenizer', index, generation });
  }

  detokenizerJoined(): void {
    this.detokenizerLost = false;
    this.acknowledgements.reset();
    this.wake();
  }

  /** Everything that was sent to the detokenizer has been handled. */
  get isAcknowledged(): boolean {
    return this.acknowledgements.isAll;
  }

  // ---------------------------------------------------------------- workers

  workerMessage(rank: number, message: WorkerToEngine): void {
    const nowMs = this.nowMs();
    switch (message.kind) {
      case 'hello':
        return;
      case 'workerReady':
        this.workers.setReady(rank, message);
        this.resume();
        return;
      case 'stepOutput':
        this.workers.addOutput(rank, message, nowMs);
        this.wake();
        return;
      case 'heartbeat':
        this.workers.heartbeat(rank, message, nowMs);
        return;
      case 'workerFailed':
        this.workerFault({
          rank: this.workers.has(message.blamedRank) ? message.blamedRank : rank,
          reason: `step ${message.step}: ${message.message}`,
        });
        return;
    }
  }

  /** A worker of another generation takes over the rank; false if it is an older one. */
  workerJoined(rank: number, generation: number): boolean {
    const known = this.workers.generationOf(rank);
    if (generation > known && this.workersReady) this.workerGone(rank, 'another took its place');
    return this.workers.join(rank, generation, this.nowMs());
  }

  /** The worker is dead or as good as dead: scheduled requests end, those never scheduled stay. */
  workerFault({ rank, reason }: WorkerFault): void {
    this.ports.replaceWorker(rank, this.workers.generationOf(rank), reason);
    this.workerGone(rank, reason);
  }

  workerGone(rank: number, reason: string): void {
    this.ports.forgetWorkers();
    this.workers.loseAll();
    this.workersReady = false;
    const error: ErrorInfo = { code: 'worker_lost', message: `worker ${rank} was lost: ${reason}` };
    for (const request of this.requests.all()) if (request.lastStep > 0) this.fail(request, error);
    this.scheduler.voidSteps();
    this.wake();
  }

  // ---------------------------------------------------------------- the loop

  /** Applies results that have come, then fills the pipeline. */
  run(): void {
    this.awake = false;
    this.updateAll();
    this.scheduleAll();
    // Ends without a step: aborts, lost workers.
    if (this.outputs.numRows > 0) this.sendOutputs(this.scheduler.lastStepRetired);
  }

  /** Call every 100 ms or so: liveness of workers, status to frontends. */
  tick(): void {
    const nowMs = this.nowMs();
    if (this.pauses.tick(nowMs)) {
      // Nobody was here to hear them.
      this.workers.wakeUp(nowMs);
      this.acknowledgements.forgive(nowMs);
    }
    if (this.scheduler.steps.length > 0) {
      const fault = this.workers.findFault(nowMs);
      if (fault) this.workerFault(fault);
    }
    const silentMs = this.acknowledgements.silentMs(nowMs);
    if (silentMs > silenceLimitMs && !this.detokenizerLost) {
      this.acknowledgements.forgive(nowMs);
      this.ports.replaceDetokenizer(`no sign of life for ${Math.round(silentMs)} ms`);
    }
    this.intake.endedPerSecond = this.status.endedPerSecond;
    const status = this.status.tick(nowMs);
    if (status) this.ports.statusToFrontends(status);
  }

  // ---------------------------------------------------------------- drain

  /** Takes no new work. */
  close(): void {
    this.closed = { code: 'shutting_down', message: 'the server is shutting down' };
  }

  endAll(error: ErrorInfo): void {
    for (const request of this.requests.all()) this.fail(request, error);
    this.wake();
  }

  private updateAll(): void {
    for (let record = this.scheduler.steps.oldest; record; record = this.scheduler.steps.oldest) {
      const { step, numRows } = record;
      const output = this.workers.takeOutput(step);
      if (!output) return;
      if (!('kind' in output) || output.columns.tokenId.length !== numRows) {
        const fault = 'kind' in output ? { rank: 0, reason: `step ${step}: bad output` } : output;
        this.workerFault(fault);
        return;
      }
      const startUs = this.ports.nowUs();
      this.updateUs = startUs;
      this.latencies.step(record.numTokens);
      this.updater.update(record, output);
      this.status.stepEnded(startUs / 1000, output);
      this.sendOutputs(step);
      const { startUs: beganUs, endUs, deviceIdleUs } = output;
      this.timeline.add('execute', beganUs, endUs, step, numRows, deviceIdleUs);
      this.timeline.add('update', startUs, this.ports.nowUs(), step, numRows);
    }
  }

  private scheduleAll(): void {
    while (this.maySchedule()) {
      const startUs = this.ports.nowUs();
      const wasIdle = this.scheduler.steps.length === 0;
      const message = this.scheduler.schedule();
      if (!message) return;
      if (wasIdle) this.workers.wakeUp(startUs / 1000);
      const { step } = message;
      const numRows = message.columns.row.length;
      this.timeline.add('schedule', startUs, this.ports.nowUs(), step, numRows);
      this.ports.toWorkers(message);
      this.timeline.add('sent', this.ports.nowUs(), 0, step, numRows);
    }
  }

  private maySchedule(): boolean {
    return this.workersReady && !this.acknowledgements.isTooFarBehind;
  }

  private resume(): void {
    const { ready } = this.workers;
    if (!ready || this.workersReady) return;
    this.scheduler.restart(ready.numBlocks);
    const { kv } = this.scheduler;
    for (const request of this.requests.all())
      if (kv.blocksFor(request.maxNumTokens - 1) >= ready.numBlocks)
        this.fail(request, { code: 'internal', message: 'the new worker has less KV cache' });
    this.workersReady = true;
    this.wake();
  }

  private sendOutputs(step: number): void {
    if (this.outputs.numRows === 0) return;
    this.acknowledgements.sent(step, this.nowMs());
    this.ports.toDetokenizer(this.outputs.take(step, this.generation));
  }

  private fail(request: Request, error: ErrorInfo): void {
    this.outputs.row(request, 'error', error);
    this.drop(request);
  }

  private drop(request: Request): void {
    this.scheduler.end(request);
    this.forget(request);
  }

  private forget(request: Request): void {
    this.requests.delete(request);
    this.status.requestEnded();
    this.mark('ended', request);
  }

  /** Returns the time. */
  private mark(kind: 'added' | 'firstRun' | 'preempted' | 'ended', request: Request): number {
    const nowUs = this.ports.nowUs();
    this.timeline.add(kind, nowUs, 0, request.frontendId, request.requestId);
    return nowUs;
  }

  private wake(): void {
    if (this.awake) return;
    this.awake = true;
    this.ports.wake();
  }

  private nowMs(): number {
    return this.ports.nowUs() / 1000;
  }
}
