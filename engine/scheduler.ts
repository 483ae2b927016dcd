// Decides what each step runs. There is no prefill phase and no decode phase: every request has
// numComputedTokens, which catches up with numTokens, and a step grants each request some tokens
// under one budget. Running requests come first, oldest first, then waiting ones. When blocks run
// out, the newest running request is preempted: it gives up its blocks and computes them again.
//
// Steps are scheduled ahead of their results. A token that a step in flight will sample is a
// placeholder: it counts at once, its value arrives in update(). Nothing that a step in flight can
// touch (blocks, rows) is reused before that step retires: it is held until then.
//
// Hashing full blocks can wait: it is done before a step only if somebody waits who could hit them,
// else by cacheBlocks(), when the step is under way.
//
// Pure: no sockets, no clock, no device. In: add(), end(), retire(). Out: one StepInput a schedule().
import type { SchedulerConfig } from '../common/config.ts';
import type { StepInput } from '../common/wire/messages.ts';
import { stepFlags } from '../common/wire/step.ts';
import { IdLists } from './id-lists.ts';
import { KvCacheManager, type Hold } from './kv-cache-manager.ts';
import type { Request } from './request.ts';
import { compareRequests, RequestQueue } from './request-queue.ts';
import { StepInputWriter } from './step-input-writer.ts';
import { StepsInFlight, type StepRecord } from './steps-in-flight.ts';

export interface SchedulerOptions {
  readonly config: SchedulerConfig;
  readonly numBlocks: number;
  /** The engine's, for StepInput. */
  readonly generation: number;
}

export class Scheduler {
  readonly config: SchedulerConfig;
  readonly kv: KvCacheManager;
  /** In the order in which requests run: the last is the first to be preempted. */
  readonly running: Request[] = [];
  readonly waiting = new RequestQueue();
  readonly steps: StepsInFlight;
  readonly stats = { numPreemptions: 0, prefixCacheQueries: 0, prefixCacheHits: 0 };
  onPreempt: ((request: Request) => void) | null = null;
  onFirstRun: ((request: Request) => void) | null = null;
  readonly rows: IdLists;
  private readonly generation: number;
  private readonly writer = new StepInputWriter();
  /** Last step that was sent, and last one that has retired. */
  private lastStep = 0;
  private retired = 0;
  /** Blocks that requests passed over in this step are waiting for. */
  private reserved = 0;

  constructor(options: SchedulerOptions) {
    const { config } = options;
    if (config.maxNumBatchedTokens < config.maxNumSeqs)
      throw new Error('maxNumBatchedTokens must be at least maxNumSeqs');
    this.config = config;
    this.generation = options.generation;
    this.steps = new StepsInFlight(config.asyncDepth, config.maxNumSeqs);
    this.rows = new IdLists(config.maxNumSeqs, config.asyncDepth, () => true);
    this.kv = new KvCacheManager({
      numBlocks: options.numBlocks,
      blockSize: config.blockSize,
      slidingWindow: config.slidingWindow,
      maxNumBatchedTokens: config.maxNumBatchedTokens,
      maxInFlight: config.asyncDepth,
      enablePrefixCaching: config.enablePrefixCaching,
      prefixCachingSeed: config.prefixCachingSeed,
    });
  }

  get numUnfinished(): number {
    return this.running.length + this.waiting.length;
  }

  get lastStepRetired(): number {
    return this.retired;
  }

  add(request: Request): void {
    this.waiting.add(request);
  }

  /**
   * The next step, or null if there is nothing to run now or enough is in flight. Its columns are
   * valid until the next call.
   */
  schedule(): StepInput | null {
    if (this.steps.isFull) return null;
    // Before this step grants anything: a block can be hit by a later step than the one that writes it.
    if (this.mayAdmit) this.cacheBlocks();
    const record = this.steps.next;
    const step = this.lastStep + 1;
    this.writer.begin();
    this.reserved = 0;
    const numPreemptions = this.stats.numPreemptions;
    const budget = this.scheduleRunning(record, step);
    // Who waits must not take what a preemption has just made free for others.
    if (this.reserved === 0 && numPreemptions === this.stats.numPreemptions)
      this.scheduleWaiting(record, step, budget);
    if (record.numRows === 0) return null;
    this.lastStep = step;
    this.steps.push(step);
    return this.writer.message(step, this.generation);
  }

  /** Enters into the prefix cache what is known of blocks that the steps sent so far fill. */
  cacheBlocks(): void {
    for (const request of this.running) this.kv.registerFull(request, request.numTokens);
  }

  /** The oldest step in flight has been executed: what it held is free. */
  retire(step: number): void {
    this.retired = step;
    this.kv.pool.retire(step);
    this.rows.retire(step);
    this.steps.shift();
  }

  /** Takes a request out, whatever its state; steps in flight may still run it. */
  end(request: Request): void {
    if (request.state === 'running') this.removeRunning(request);
    else this.waiting.remove(request);
    request.state = 'ended';
    this.release(request, [{ untilStep: request.lastStep }]);
  }

  /** No step in flight will come back; whatever they held is free. */
  voidSteps(): void {
    for (let record = this.steps.oldest; record; record = this.steps.oldest)
      this.retire(record.step);
  }

  /** The KV cache and the worker's rows are lost; nobody has any, nothing is in flight. */
  restart(numBlocks: number): void {
    if (this.running.length > 0 || this.steps.length > 0)
      throw new Error('restart() with running requests');
    this.kv.restart(numBlocks, this.retired);
  }

  /** Returns the budget that is left. */
  private scheduleRunning(record: StepRecord, step: number): number {
    let budget = this.config.maxNumBatchedTokens;
    for (let i = 0; i < this.running.length && budget > 0; i++) {
      const request = this.running[i]!;
      const count = Math.min(request.numSchedulable, budget);
      if (count <= 0) continue;
      const numTokens = request.numComputedTokens + count;
      const firstBlock = request.numBlocks;
      this.kv.releaseUnread(request, request.lastStep);
      if (!this.makeRoom(request, this.kv.numMissing(request, numTokens))) continue;
      this.kv.allocate(request, numTokens);
      this.grant(record, step, request, count, firstBlock);
      budget -= count;
    }
    return budget;
  }

  /**
   * Sees to it that `numMissing` blocks are free, preempting requests that come after this one. Once
   * free and held blocks cover the need, it only has to wait: false, and they are reserved for it.
   */
  private makeRoom(request: Request, numMissing: number): boolean {
    const { pool } = this.kv;
    if (numMissing <= 0) return true;
    while (pool.numFree + pool.numHeld - this.reserved < numMissing) {
      const victim = this.running.at(-1)!;
      this.preempt(victim);
      if (victim === request) return false;
    }
    if (pool.numFree - this.reserved >= numMissing) return true;
    this.reserved += numMissing;
    return false;
  }

  private preempt(request: Request): void {
    this.running.pop();
    this.kv.registerFull(request, request.numTokens);
    this.release(request, [{ untilStep: request.lastStep }]);
    // Tokens that steps in flight sample for it still arrive and are kept.
    request.numComputedTokens = 0;
    request.state = 'waiting';
    this.waiting.add(request);
    this.stats.numPreemptions++;
    this.onPreempt?.(request);
  }

  private get mayAdmit(): boolean {
    return this.waiting.length > 0 && this.running.length < this.config.maxNumSeqs;
  }

  private scheduleWaiting(record: StepRecord, step: number, budget: number): void {
    let next = this.waiting.first;
    while (next && budget > 0) {
      const request = next;
      next = this.waiting.after(request);
      if (this.running.length === this.config.maxNumSeqs || this.rows.numFree === 0) return;
      // A preempted request waits for its steps; nobody overtakes it and takes its blocks.
      if (request.lastStep > this.retired) return;
      if (waitsForSibling(request, step)) continue;
      if (!this.fits(request)) return;
      budget -= this.admit(record, step, request, budget);
    }
  }

  /** Whether all that is known of a waiting request fits now, after the cached blocks it would hit. */
  private fits(request: Request): boolean {
    const numCached = this.kv.findCached(request);
    const numMissing = this.kv.maxHeld(request.numTokens) - numCached;
    // Room for running requests to grow, or the newcomer would be preempted at once.
    const watermark = this.running.length === 0 ? 0 : Math.ceil(this.kv.pool.numBlocks / 100);
    return this.kv.pool.numFree - this.kv.numFoundFree >= numMissing + watermark;
  }

  /** After fits(). Returns the tokens granted. */
  private admit(record: StepRecord, step: number, request: Request, budget: number): number {
    this.waiting.remove(request);
    this.kv.takeCached(request);
    request.numComputedTokens = request.numBlocks * this.kv.blockSize;
    if (request.numCachedTokens < 0) {
      request.numCachedTokens = request.numComputedTokens;
      this.stats.prefixCacheQueries += request.numPromptTokens;
      this.stats.prefixCacheHits += request.numComputedTokens;
      this.onFirstRun?.(request);
    }
    const count = Math.min(request.numTokens - request.numComputedTokens, budget);
    this.kv.allocate(request, request.numComputedTokens + count);
    request.row = this.rows.take();
    request.state = 'running';
    this.insertRunning(request);
    this.writer.newRow(request);
    this.grant(record, step, request, count, 0);
    return count;
  }

  /** Counts advance here, at schedule time; update() corrects them. */
  private grant(
    record: StepRecord,
    step: number,
    request: Request,
    count: number,
    firstNewBlock: number,
  ): void {
    const start = request.numComputedTokens;
    request.numComputedTokens += count;
    request.lastStep = step;
    let flags = 0;
    // A chunk that does not reach numTokens samples nothing and adds no placeholder.
    if (request.numComputedTokens === request.numTokens + request.numPlaceholders) {
      flags |= stepFlags.sample;
      request.numPlaceholders++;
    }
    if (start < request.numPromptTokens) {
      if (request.wantsPromptLogprobs) flags |= stepFlags.promptLogprobs;
      if (request.numComputedTokens >= request.numPromptTokens) request.promptStep ||= step;
    }
    this.writer.newBlocks(request, firstNewBlock);
    this.writer.row(request, start, count, flags);
    record.add(request, count, flags);
  }

  /** The one place where a request gives back what it has, under holds. */
  private release(request: Request, holds: readonly Hold[]): void {
    let untilStep = 0;
    for (const hold of holds) untilStep = Math.max(untilStep, hold.untilStep);
    this.kv.release(request, untilStep);
    if (request.row >= 0) this.rows.release(request.row, untilStep);
    request.row = -1;
  }

  private insertRunning(request: Request): void {
    let at = this.running.push(request) - 1;
    for (; at > 0 && compareRequests(this.running[at - 1]!, request) > 0; at--)
      this.running[at] = this.running[at - 1]!;
    this.running[at] = request;
  }

  private removeRunning(request: Request): void {
    const { running } = this;
    for (let i = running.indexOf(request); i + 1 < running.length; i++)
      running[i] = running[i + 1]!;
    running.pop();
  }
}

/** The first child's blocks can be hit by a later step than the one that completes its prompt. */
function waitsForSibling({ leader }: Request, step: number): boolean {
  if (leader === null || leader.state === 'ended') return false;
  return leader.promptStep === 0 || leader.promptStep === step;
}
