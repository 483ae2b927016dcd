// Rebuilds the scheduler's invariants from scratch; tests call it after each step.
import type { SchedulerConfig } from '../common/config.ts';
import { firstReadPosition } from '../common/kv-window.ts';
import { stepFlags } from '../common/wire/step.ts';
import { hashWords } from './block-hash.ts';
import { nullBlock } from './block-pool.ts';
import type { Request } from './request.ts';
import { compareRequests } from './request-queue.ts';
import type { Scheduler } from './scheduler.ts';

/** Throws on the first invariant that does not hold. */
export function checkIntegrity(scheduler: Scheduler): void {
  const { running, waiting, kv, rows, config } = scheduler;
  waiting.checkIntegrity();
  rows.checkIntegrity();
  const references = new Int32Array(kv.pool.numBlocks);
  const usedRows = new Set<number>();
  const flags = placeholders(scheduler);
  let last: Request | null = null;
  for (const request of running) {
    if (request.state !== 'running') throw new Error(`a ${request.state} request is running`);
    if (last && compareRequests(last, request) >= 0) throw new Error('running is out of order');
    last = request;
    if (usedRows.has(request.row)) throw new Error(`row ${request.row} belongs to two requests`);
    if (!rows.isInUse(request.row)) throw new Error(`row ${request.row} is used and free`);
    usedRows.add(request.row);
    checkCounts(request, flags.get(request) ?? 0, config.blockSize);
    for (let i = 0; i < request.numBlocks; i++) references[request.blockTable[i]!]!++;
    checkWindow(request, config);
  }
  for (const request of waiting) {
    if (request.numBlocks > 0 || request.row >= 0) throw new Error('a waiting request has blocks');
    if (request.numComputedTokens > 0) throw new Error('a waiting request has computed tokens');
    if (request.numPlaceholders !== (flags.get(request) ?? 0))
      throw new Error('placeholders of a waiting request');
  }
  if (rows.numFree + rows.numHeld + usedRows.size !== config.maxNumSeqs)
    throw new Error('a row is lost');
  kv.pool.checkIntegrity(references);
}

/** Tokens that the steps in flight will sample, by request. */
function placeholders({ steps }: Scheduler): Map<Request, number> {
  const counts = new Map<Request, number>();
  for (let i = 0; i < steps.length; i++) {
    const record = steps.at(i);
    for (let row = 0; row < record.numRows; row++)
      if (record.flags[row]! & stepFlags.sample) {
        const request = record.requests[row]!;
        counts.set(request, (counts.get(request) ?? 0) + 1);
      }
  }
  return counts;
}

/** Exactly the leading blocks that were given back are null, and none of them is read again. */
function checkWindow(request: Request, { slidingWindow, blockSize }: SchedulerConfig): void {
  const { numReleased, numBlocks, numComputedTokens, blockTable } = request;
  const first = firstReadPosition(numComputedTokens, slidingWindow);
  if (numReleased * blockSize > first) throw new Error(`block ${numReleased - 1} is still read`);
  for (let i = 0; i < numBlocks; i++)
    if ((blockTable[i] === nullBlock) !== i < numReleased)
      throw new Error(`block ${i} of ${numReleased} given back is ${blockTable[i]}`);
}

function checkCounts(request: Request, numPlaceholders: number, blockSize: number): void {
  const { numTokens, numComputedTokens, numBlocks, numRegistered, maxNumTokens } = request;
  if (request.numPlaceholders !== numPlaceholders)
    throw new Error(`${request.numPlaceholders} placeholders, ${numPlaceholders} in flight`);
  const known = numTokens + numPlaceholders;
  if (known > maxNumTokens) throw new Error('scheduled past the end by length');
  if (numComputedTokens >= known + 1 || numComputedTokens >= maxNumTokens)
    throw new Error(`${numComputedTokens} computed of ${known} tokens`);
  if (numBlocks !== Math.ceil(numComputedTokens / blockSize))
    throw new Error(`${numBlocks} blocks for ${numComputedTokens} tokens`);
  if (numRegistered * blockSize > Math.min(numTokens, numComputedTokens))
    throw new Error('a block that is not full is in the prefix cache');
  if (request.numHashed * hashWords > request.hashes.length) throw new Error('hashes are short');
}
