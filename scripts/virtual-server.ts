// EngineCore, a fake worker and a fake detokenizer in one process on virtual time: no sockets, no
// waiting, the same engine code as in the server. Tests and the simulator drive it.
import { defaultRequestLimits } from '../common/limits.ts';
import type { EngineSlice, SchedulerConfig } from '../common/config.ts';
import type { ErrorInfo } from '../common/errors.ts';
import {
  defaultSamplingParams,
  defaultTextParams,
  type SamplingParams,
} from '../common/sampling-params.ts';
import {
  finishReasons,
  type AddRequest,
  type EngineToFrontend,
  type FinishReason,
  type NewTextRequest,
  type StepInput,
  type TokenOutputs,
  type WorkerReady,
} from '../common/wire/messages.ts';
import { EngineCore } from '../engine/engine-core.ts';
import { WorkerGroup } from '../engine/worker-group.ts';
import { FakeModel, type FakeModelOptions } from './fake-model.ts';

export const defaultScheduler: SchedulerConfig = {
  maxNumSeqs: 256,
  maxNumBatchedTokens: 2048,
  maxModelLen: 2048,
  schedulingPolicy: 'fcfs',
  asyncDepth: 2,
  blockSize: 16,
  slidingWindow: 0,
  enablePrefixCaching: true,
  prefixCachingSeed: '0',
  maxQueuedRequests: 0,
  maxQueuedTokens: 0,
};

export interface VirtualServerOptions {
  readonly scheduler?: Partial<SchedulerConfig>;
  /** As asyncDepth unless it says otherwise. */
  readonly leastAsyncDepth?: number;
  readonly numBlocks?: number;
  readonly vocabSize?: number;
  readonly eosTokenIds?: readonly number[];
  readonly readHistory?: boolean;
  readonly isNan?: FakeModelOptions['isNan'];
  /** What a step takes on the device. */
  readonly stepUs?: (step: StepInput) => number;
  /** What a step's result takes to the engine. */
  readonly reportUs?: (step: number) => number;
  /** The detokenizer acknowledges nothing while false. */
  readonly acknowledge?: boolean;
}

/** What the fake detokenizer knows of a request. */
export interface Outcome {
  readonly newRequest: NewTextRequest;
  readonly tokenIds: number[];
  /** Entries of each token. */
  readonly logprobs: number[][];
  /** Position -> entries. */
  readonly promptLogprobs: Map<number, number[]>;
  finishReason: FinishReason;
  stopTokenId: number;
  error: ErrorInfo | null;
  numCachedTokens: number;
  firstTokenUs: number;
  endUs: number;
}

export interface NewRequest {
  readonly frontendId?: number;
  readonly requestId: number;
  readonly prompt: ArrayLike<number>;
  readonly sampling?: Partial<SamplingParams>;
  readonly n?: number;
  readonly priority?: number;
  readonly cacheSalt?: string | null;
}

interface Execution {
  readonly step: number;
  readonly startUs: number;
  readonly endUs: number;
  readonly deviceIdleUs: number;
  /** When the engine gets its result. */
  readonly reportedUs: number;
}

export class VirtualServer {
  readonly core: EngineCore;
  readonly slice: EngineSlice;
  readonly toFrontend: { readonly frontendId: number; readonly message: EngineToFrontend }[] = [];
  readonly outcomes = new Map<string, Outcome>();
  readonly replaced: { rank: number; generation: number; reason: string }[] = [];
  readonly detokenizerFaults: string[] = [];
  /** Called for each token and end that reaches the detokenizer. */
  onOutput: ((frontendId: number, requestId: number, outcome: Outcome) => void) | null = null;
  /** Called after each run() of the engine. */
  onRun: (() => void) | null = null;
  acknowledge: boolean;
  nowUs = 1_000_000;
  numSteps = 0;
  /** Time in which the worker had a step to execute. */
  busyUs = 0;
  model: FakeModel;
  private readonly options: VirtualServerOptions;
  private generation = 0;
  private workerAlive = true;
  private workerBusyUntilUs = 0;
  private readonly executing: Execution[] = [];
  private awake = false;
  private readonly timers: { atUs: number; call: () => void }[] = [];

  constructor(options: VirtualServerOptions = {}) {
    this.options = options;
    this.acknowledge = options.acknowledge ?? true;
    const scheduler = { ...defaultScheduler, ...options.scheduler };
    this.slice = makeSlice(scheduler, options);
    this.model = this.makeModel();
    const workers = new WorkerGroup(1, this.slice.stepTimeoutMs);
    workers.join(0, 0, this.nowUs / 1000);
    const ready = this.ready();
    workers.setReady(0, ready);
    this.core = new EngineCore(this.slice, workers, ready, {
      toFrontend: (frontendId, message) => this.toFrontend.push({ frontendId, message }),
      toAllFrontends: (message) => this.toFrontend.push({ frontendId: 0, message }),
      statusToFrontends: (message) => this.toFrontend.push({ frontendId: 0, message }),
      toWorkers: (message) => this.submit(message),
      toDetokenizer: (message) => this.deliver(message),
      forgetWorkers: () => undefined,
      replaceWorker: (rank, generation, reason) => {
        this.workerAlive = false;
        this.replaced.push({ rank, generation, reason });
      },
      replaceDetokenizer: (reason) => this.detokenizerFaults.push(reason),
      wake: () => (this.awake = true),
      nowUs: () => this.nowUs,
    });
    this.poisonFreed();
    this.core.frontendJoined(1);
  }

  add({ frontendId = 1, requestId, prompt, n = 1, priority = 0, ...rest }: NewRequest): void {
    const message: AddRequest = {
      kind: 'addRequest',
      requestId,
      n,
      sampling: { ...defaultSamplingParams, ...rest.sampling },
      text: defaultTextParams,
      priority,
      cacheSalt: rest.cacheSalt ?? null,
      columns: { promptTokenIds: Int32Array.from(prompt) },
    };
    this.core.addRequest(frontendId, message);
  }

  outcome(requestId: number, frontendId = 1): Outcome | undefined {
    return this.outcomes.get(`${frontendId}/${requestId}`);
  }

  at(atUs: number, call: () => void): void {
    // Latest first; those of the same time in the order in which they were asked for.
    let low = 0;
    let high = this.timers.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.timers[middle]!.atUs > atUs) low = middle + 1;
      else high = middle;
    }
    this.timers.splice(low, 0, { atUs, call });
  }

  /** The worker fails in the step that it executes, or dies while idle. */
  killWorker(): void {
    this.workerAlive = false;
    this.executing.length = 0;
    this.core.workerGone(0, 'killed');
  }

  /** A new worker with an empty cache. */
  replaceWorker(): void {
    this.workerAlive = true;
    this.generation++;
    this.executing.length = 0;
    this.model = this.makeModel();
    this.core.workerJoined(0, this.generation);
    this.core.workerMessage(0, this.ready());
    this.poisonFreed();
  }

  /** One round: the engine if it was woken, else the next event. False if nothing is left. */
  step(): boolean {
    if (this.awake) {
      this.awake = false;
      this.core.run();
      this.onRun?.();
      return true;
    }
    const timer = this.timers.at(-1);
    const execution = this.executing[0];
    if (timer && (!execution || timer.atUs <= execution.reportedUs)) {
      this.timers.pop();
      this.nowUs = Math.max(this.nowUs, timer.atUs);
      timer.call();
      return true;
    }
    if (!execution) return false;
    this.executing.shift();
    this.nowUs = Math.max(this.nowUs, execution.reportedUs);
    this.answer(execution);
    return true;
  }

  /** Until nothing is left to happen. */
  run(maxRounds = Infinity): void {
    for (let round = 0; this.step(); round++)
      if (round >= maxRounds) throw new Error(`no end after ${maxRounds} rounds`);
  }

  private submit(message: StepInput): void {
    if (!this.workerAlive) return;
    this.model.submit(message);
    const isFirst = this.numSteps++ === 0;
    const startUs = Math.max(this.nowUs, this.workerBusyUntilUs);
    const endUs = startUs + (this.options.stepUs?.(message) ?? 3000);
    const deviceIdleUs = isFirst ? 0 : startUs - this.workerBusyUntilUs;
    this.workerBusyUntilUs = endUs;
    this.busyUs += endUs - startUs;
    const { step } = message;
    const reportedUs = endUs + (this.options.reportUs?.(step) ?? 0);
    this.executing.push({ step, startUs, endUs, deviceIdleUs, reportedUs });
  }

  private answer({ step, startUs, endUs, deviceIdleUs }: Execution): void {
    const { generation } = this;
    const result = this.model.execute();
    if (result.step !== step) throw new Error(`executed step ${result.step} instead of ${step}`);
    const times = { startUs, endUs, deviceIdleUs };
    this.core.workerMessage(0, { kind: 'stepOutput', generation, rank: 0, ...times, ...result });
  }

  private deliver(message: TokenOutputs): void {
    for (const newRequest of message.newRequests) {
      const key = `${newRequest.frontendId}/${newRequest.requestId}`;
      if (this.outcomes.get(key)?.finishReason === 'none') throw new Error(`${key} is new twice`);
      this.outcomes.set(key, {
        newRequest,
        tokenIds: [],
        logprobs: [],
        promptLogprobs: new Map(),
        finishReason: 'none',
        stopTokenId: -1,
        error: null,
        numCachedTokens: 0,
        firstTokenUs: 0,
        endUs: 0,
      });
    }
    const c = message.columns;
    const rows: Outcome[] = [];
    let entry = 0;
    for (let row = 0; row < c.requestId.length; row++) {
      const key = `${c.frontendId[row]!}/${c.requestId[row]!}`;
      const outcome = this.outcomes.get(key);
      if (outcome?.finishReason !== 'none') throw new Error(`output for ${key}, which is not open`);
      rows.push(outcome);
      for (let k = c.tokenStart[row]!; k < c.tokenStart[row + 1]!; k++) {
        if (outcome.tokenIds.length === 0) outcome.firstTokenUs = this.nowUs;
        outcome.tokenIds.push(c.tokenIds[k]!);
        const end = entry + c.logprobCount[k]!;
        outcome.logprobs.push([
          ...c.logprobs.subarray(entry, end),
          ...c.logprobIds.subarray(entry, end),
        ]);
        entry = end;
      }
      outcome.numCachedTokens = c.numCachedTokens[row]!;
      outcome.finishReason = finishReasons[c.finishReason[row]!]!;
      outcome.stopTokenId = c.stopTokenId[row]!;
      if (outcome.finishReason !== 'none') outcome.endUs = this.nowUs;
    }
    let promptEntry = 0;
    for (let p = 0; p < c.promptLogprobRow.length; p++) {
      const { promptLogprobs } = rows[c.promptLogprobRow[p]!]!;
      const position = c.promptLogprobPosition[p]!;
      if (promptLogprobs.has(position)) throw new Error(`prompt logprobs of ${position} twice`);
      const end = promptEntry + c.promptLogprobCount[p]!;
      promptLogprobs.set(position, [...c.promptLogprobs.subarray(promptEntry, end)]);
      promptEntry = end;
    }
    for (const { row, error } of message.errors) rows[row]!.error = error;
    for (let row = 0; row < rows.length; row++)
      this.onOutput?.(c.frontendId[row]!, c.requestId[row]!, rows[row]!);
    if (this.acknowledge) this.core.detokenizerMessage({ kind: 'ack', step: message.step });
  }

  private makeModel(): FakeModel {
    const { maxNumSeqs, maxModelLen, blockSize, slidingWindow } = this.slice.scheduler;
    return new FakeModel({
      maxNumSeqs,
      maxModelLen,
      blockSize,
      slidingWindow,
      numBlocks: this.numBlocks,
      vocabSize: this.slice.model.vocabSize,
      readHistory: this.options.readHistory ?? true,
      ...(this.options.isNan && { isNan: this.options.isNan }),
    });
  }

  private get numBlocks(): number {
    return this.options.numBlocks ?? 4096;
  }

  private poisonFreed(): void {
    this.core.scheduler.kv.pool.onPoison = (block) => this.model.poisonBlock(block);
  }

  private ready(): WorkerReady {
    return {
      kind: 'workerReady',
      rank: 0,
      generation: this.generation,
      device: 'fake',
      dtype: 'f32',
      kvCacheDtype: 'f32',
      numBlocks: this.numBlocks,
      blockBytes: 1,
      vocabSize: this.slice.model.vocabSize,
      memory: { kvCache: this.numBlocks },
    };
  }
}

function makeSlice(scheduler: SchedulerConfig, options: VirtualServerOptions): EngineSlice {
  const listen = { address: '', curve: null };
  return {
    runDir: '',
    generation: 0,
    logLevel: 'error',
    logFormat: 'text',
    scheduler,
    leastAsyncDepth: options.leastAsyncDepth ?? scheduler.asyncDepth,
    fitModelLen: false,
    model: {
      name: 'fake',
      vocabSize: options.vocabSize ?? 101,
      eosTokenIds: options.eosTokenIds ?? [2],
    },
    maxLogprobs: 20,
    limits: defaultRequestLimits,
    numWorkers: 1,
    frontendListen: listen,
    workerListen: listen,
    detokenizerAddress: '',
    stepTimeoutMs: 60_000,
    disableLogStats: true,
    enableDebugTimeline: true,
    defaultSeed: 0,
    defaultSampling: {},
  };
}
