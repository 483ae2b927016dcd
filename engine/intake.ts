// Turns an AddRequest into requests that wait, or says why not: bad parameters, a prompt that can
// never fit, a full queue. A group of n is taken whole or refused whole.
import type { EngineSlice } from '../common/config.ts';
import { RequestError } from '../common/errors.ts';
import type { AddRequest } from '../common/wire/messages.ts';
import { Admission } from './admission.ts';
import { Request } from './request.ts';
import type { RequestTable } from './request-table.ts';
import type { Scheduler } from './scheduler.ts';
import { SeedSource } from './seed-source.ts';
import { stopIdsOf } from './stop-ids.ts';

const minRetryAfterMs = 1000;
const maxRetryAfterMs = 60_000;

export class Intake {
  /** Requests that end in a second, as measured; for Retry-After. */
  endedPerSecond = 0;
  private readonly slice: EngineSlice;
  private readonly admission: Admission;
  private readonly seeds: SeedSource;
  private numArrivals = 0;

  constructor(slice: EngineSlice) {
    this.slice = slice;
    this.seeds = new SeedSource(slice.defaultSeed);
    this.admission = new Admission({
      scheduler: slice.scheduler,
      vocabSize: slice.model.vocabSize,
      eosTokenIds: slice.model.eosTokenIds,
      maxLogprobs: slice.maxLogprobs,
      limits: slice.limits,
    });
  }

  /** Adds the n requests to the table and the queue. Throws RequestError and then adds none. */
  add(
    frontendId: number,
    message: AddRequest,
    scheduler: Scheduler,
    table: RequestTable,
  ): readonly Request[] {
    const request = this.admission.check(message);
    const { requestId, n, sampling, columns } = request;
    for (let i = 0; i < n; i++)
      if (table.get(frontendId, requestId + i))
        throw new RequestError('bad_request', `request ${requestId + i} exists`, 'request_id');
    const numPromptTokens = columns.promptTokenIds.length;
    const { maxModelLen } = this.slice.scheduler;
    const maxNumTokens = Math.min(
      maxModelLen,
      sampling.maxTokens === null ? maxModelLen : numPromptTokens + sampling.maxTokens,
    );
    this.checkFits(scheduler, maxNumTokens);
    this.checkQueue(scheduler, n, numPromptTokens);
    const seed = sampling.seed === null ? this.seeds.draw() : BigInt(sampling.seed);
    const stopIds = stopIdsOf(sampling, this.slice.model.eosTokenIds);
    const requests: Request[] = [];
    for (let i = 0; i < n; i++) {
      const child = new Request({
        frontendId,
        requestId: requestId + i,
        arrival: this.numArrivals++,
        promptTokenIds: columns.promptTokenIds,
        sampling,
        text: request.text,
        priority: request.priority,
        cacheSalt: request.cacheSalt,
        stopIds,
        seed: BigInt.asUintN(64, seed + BigInt(i)),
        maxNumTokens,
        leader: requests[0] ?? null,
      });
      requests.push(child);
      table.add(child);
      scheduler.add(child);
    }
    return requests;
  }

  /** The last token is sampled but never computed, hence one less. */
  private checkFits(scheduler: Scheduler, maxNumTokens: number): void {
    const { kv } = scheduler;
    const numBlocks = kv.maxHeld(maxNumTokens - 1);
    if (numBlocks < kv.pool.numBlocks) return;
    throw new RequestError(
      'context_length_exceeded',
      `the request may need ${maxNumTokens} tokens of KV cache, which holds ` +
        `${(kv.pool.numBlocks - 1) * kv.blockSize}: shorten the prompt or lower max_tokens`,
      'max_tokens',
    );
  }

  /** The bounds are for requests that wait because nothing is free, not for a burst that fits. */
  private checkQueue(scheduler: Scheduler, n: number, numPromptTokens: number): void {
    const { maxQueuedRequests, maxQueuedTokens, maxNumSeqs } = this.slice.scheduler;
    const { numUnfinished, waiting } = scheduler;
    // Trying again would not help.
    if (maxQueuedRequests > 0 && n > maxNumSeqs + maxQueuedRequests)
      throw new RequestError(
        'bad_request',
        `n must be at most ${maxNumSeqs + maxQueuedRequests}: ${maxNumSeqs} requests run ` +
          `(--max-num-seqs) and ${maxQueuedRequests} wait (--max-queued-requests)`,
        'n',
      );
    const numExcess = numUnfinished + n - maxNumSeqs;
    if (maxQueuedRequests > 0 && numExcess > maxQueuedRequests)
      throw this.queueFull(`${waiting.length} requests are waiting`, numExcess);
    if (
      maxQueuedTokens > 0 &&
      waiting.length > 0 &&
      waiting.numPromptTokens + n * numPromptTokens > maxQueuedTokens
    )
      throw this.queueFull(`${waiting.numPromptTokens} prompt tokens are waiting`, waiting.length);
  }

  private queueFull(reason: string, numAhead: number): RequestError {
    const estimateMs = this.endedPerSecond > 0 ? (1000 * numAhead) / this.endedPerSecond : 0;
    const retryAfterMs = Math.min(
      Math.max(Math.round(estimateMs), minRetryAfterMs),
      maxRetryAfterMs,
    );
    return new RequestError('queue_full', `the queue is full: ${reason}`, null, retryAfterMs);
  }
}
