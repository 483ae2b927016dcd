// The engine without its sockets: messages come in by calls and go out through ports, time is handed
// in. run() is the loop's body: what came in has been applied (aborts and stops at once), then
// update(), schedule() and send, and last what no worker waits for.
import type { EngineSlice } from '../common/config.ts';
import { RequestError, type ErrorInfo } from '../common/errors.ts';
import { OwnPauses } from '../common/own-pauses.ts';
import type {
  AddRequest,
  DetokenizerToEngine,
  WorkerReady,
  WorkerToEngine,
} from '../common/wire/messages.ts';
import { AsyncDepth } from './async-depth.ts';
import { DetokenizerOutbox } from './detokenizer-outbox.ts';
import { Intake } from './intake.ts';
import { Latencies } from './latencies.ts';
import type { EnginePorts } from './ports.ts';
import type { Request } from './request.ts';
import { RequestEnds } from './request-ends.ts';
import { RequestTable } from './request-table.ts';
import { RunAhead } from './run-ahead.ts';
import { Scheduler } from './scheduler.ts';
import { StatusReporter } from './status.ts';
import { Timeline } from './timeline.ts';
import { Updater } from './update.ts';
import { WorkerGroup, type WorkerFault } from './worker-group.ts';

const timelineCapacity = 16_384;

export class EngineCore {
  readonly scheduler: Scheduler;
  readonly requests = new RequestTable();
  readonly workers: WorkerGroup;
  readonly timeline: Timeline;
  readonly status: StatusReporter;
  private readonly ports: EnginePorts;
  private readonly intake: Intake;
  private readonly latencies = new Latencies();
  private readonly outbox: DetokenizerOutbox;
  private readonly ends: RequestEnds;
  private readonly runAhead: RunAhead;
  /** Requests are refused with this while set. */
  private closed: ErrorInfo | null = null;
  private workersReady = true;
  private readonly pauses = new OwnPauses();
  private awake = false;

  /** `ready` is what the workers have in common; all of them are ready. */
  constructor(slice: EngineSlice, workers: WorkerGroup, ready: WorkerReady, ports: EnginePorts) {
    this.workers = workers;
    this.ports = ports;
    this.timeline = new Timeline(slice.enableDebugTimeline ? timelineCapacity : 0);
    this.intake = new Intake(slice);
    this.scheduler = new Scheduler({
      config: slice.scheduler,
      numBlocks: ready.numBlocks,
      generation: slice.generation,
    });
    this.outbox = new DetokenizerOutbox(slice.generation, ports);
    const { scheduler, requests, outbox, latencies, timeline } = this;
    const updater = new Updater(scheduler, outbox.rows, slice.model.vocabSize);
    const status = new StatusReporter(scheduler, updater, latencies);
    this.status = status;
    const ended = (request: Request) => void this.mark('ended', request);
    this.ends = new RequestEnds({ scheduler, requests, outbox, status, ended });
    const depth = new AsyncDepth(slice.leastAsyncDepth, slice.scheduler.asyncDepth);
    const parts = {
      scheduler,
      depth,
      workers,
      updater,
      outbox,
      status,
      latencies,
      timeline,
      ports,
    };
    this.runAhead = new RunAhead(parts);
    updater.onEnd = (request) => {
      if (request.finishReason !== 'error') this.latencies.finished(request);
      this.ends.forget(request);
    };
    updater.onToken = (request) => this.latencies.token(request, this.runAhead.updateUs);
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
    for (const request of this.requests.of(frontendId)) this.ends.drop(request);
    this.requests.removeFrontend(frontendId);
    this.wake();
  }

  addRequest(frontendId: number, message: AddRequest): void {
    const { requestId, n } = message;
    try {
      if (this.closed) throw RequestError.from(this.closed);
      if (this.outbox.isLost)
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
      if (request) this.ends.abort(request);
    }
    this.wake();
  }

  // ---------------------------------------------------------------- detokenizer

  detokenizerMessage(message: DetokenizerToEngine): void {
    if (message.kind === 'ack') {
      const wasBehind = this.outbox.isTooFarBehind(this.scheduler.lastStepRetired);
      this.outbox.acknowledged(message.step, this.nowMs());
      if (wasBehind) this.wake();
    } else if (message.kind === 'stopRequest') {
      const { frontendId, requestId } = message.columns;
      for (let i = 0; i < requestId.length; i++) {
        const request = this.requests.get(frontendId[i]!, requestId[i]!);
        // It has sent the terminal message itself.
        if (!request) continue;
        this.latencies.finished(request);
        this.ends.drop(request);
      }
      this.wake();
    }
  }

  /** All accepted requests end with it: their text was there. Frontends end their own. */
  detokenizerGone(index: number, generation: number): void {
    for (const request of this.requests.all()) this.ends.drop(request);
    this.outbox.lost();
    this.ports.toAllFrontends({ kind: 'peerLost', role: 'detokenizer', index, generation });
  }

  detokenizerJoined(): void {
    this.outbox.joined();
    this.wake();
  }

  /** Everything that was sent to the detokenizer has been handled. */
  get isAcknowledged(): boolean {
    return this.outbox.isAcknowledged;
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

  /** A worker has ended, or its connection has. */
  workerLeft(rank: number, reason: string): void {
    this.workerGone(rank, `${reason}${this.workers.lastPlace(rank)}`);
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
    for (const request of this.requests.all())
      if (request.lastStep > 0) this.ends.fail(request, error);
    this.scheduler.voidSteps();
    this.wake();
  }

  // ---------------------------------------------------------------- the loop

  /** Applies results that have come, then fills the pipeline, then does what can wait. */
  run(): void {
    this.awake = false;
    const fault = this.runAhead.update();
    if (fault) {
      this.runAhead.settle();
      this.workerFault(fault);
    }
    if (this.workersReady) this.runAhead.schedule();
    // Results, and ends without a step: aborts, lost workers.
    this.runAhead.settle();
  }

  /** Call every 100 ms or so: liveness of workers, status to frontends. */
  tick(): void {
    const nowMs = this.nowMs();
    if (this.pauses.tick(nowMs)) {
      // Nobody was here to hear them.
      this.workers.wakeUp(nowMs);
      this.outbox.forgive(nowMs);
    }
    if (this.scheduler.steps.length > 0) {
      const fault = this.workers.findFault(nowMs);
      if (fault) this.workerFault(fault);
    }
    this.outbox.tick(nowMs);
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
    for (const request of this.requests.all()) this.ends.fail(request, error);
    this.wake();
  }

  private resume(): void {
    const { ready } = this.workers;
    if (!ready || this.workersReady) return;
    this.scheduler.restart(ready.numBlocks);
    const { kv } = this.scheduler;
    for (const request of this.requests.all())
      if (kv.maxHeld(request.maxNumTokens - 1) >= ready.numBlocks)
        this.ends.fail(request, { code: 'internal', message: 'the new worker has less KV cache' });
    this.workersReady = true;
    this.wake();
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
