// The blocks of requests in one KV group: finds what the prefix cache has, takes the rest from the
// pool, enters full blocks into the cache, gives all back. With a sliding window a request gives back
// early what no later step reads (its table has the null block there), and a hit needs only the
// blocks that its next token reads. A model that mixes windows will have one of these for each group,
// and a hit is then what all groups accept.
import { firstReadPosition, maxBlocksHeld } from '../common/kv-window.ts';
import { BlockHasher } from './block-hash.ts';
import { BlockPool, nullBlock } from './block-pool.ts';
import type { Request } from './request.ts';

/**
 * Keeps what a request gives back from being reused. A connector that still reads blocks will be
 * another kind of hold.
 */
export interface Hold {
  /** Until this step has retired. */
  readonly untilStep: number;
}

export interface KvCacheOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  /** 0 = full attention. */
  readonly slidingWindow: number;
  readonly maxNumBatchedTokens: number;
  readonly maxInFlight: number;
  readonly enablePrefixCaching: boolean;
  readonly prefixCachingSeed: string | null;
}

export class KvCacheManager {
  pool: BlockPool;
  readonly blockSize: number;
  private readonly options: KvCacheOptions;
  private readonly hasher: BlockHasher;
  /** Result of the last findCached(), by block index; the null block where nothing is read. */
  private readonly found: number[] = [];

  constructor(options: KvCacheOptions) {
    this.pool = new BlockPool(options.numBlocks, options.maxInFlight);
    this.options = options;
    this.blockSize = options.blockSize;
    this.hasher = new BlockHasher(options.blockSize, options.prefixCachingSeed);
  }

  /** The cache was lost while nobody had blocks: a fresh pool, the same hashes. */
  restart(numBlocks: number, retired: number): void {
    this.pool = new BlockPool(numBlocks, this.options.maxInFlight, retired);
  }

  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.blockSize);
  }

  /** Blocks that a request of numTokens tokens holds at most at one time. */
  maxHeld(numTokens: number): number {
    return maxBlocksHeld(numTokens, this.options.slidingWindow, this.options);
  }

  /**
   * Finds the longest prefix of a waiting request whose blocks the cache has, as far as they will be
   * read; returns how many blocks that are. The last token is never taken from the cache: its logits
   * are needed. Follow with takeCached() or forget it.
   */
  findCached(request: Request): number {
    this.found.length = 0;
    if (!this.options.enablePrefixCaching || request.wantsPromptLogprobs) return 0;
    const limit = Math.floor((request.numTokens - 1) / this.blockSize);
    return this.options.slidingWindow > 0
      ? this.findWindow(request, limit)
      : this.findPrefix(request, limit);
  }

  private findPrefix(request: Request, limit: number): number {
    for (let index = 0; index < limit; index++) {
      this.hashUpTo(request, index + 1);
      const block = this.pool.lookup(request.hashes, index);
      if (block < 0) break;
      this.found.push(block);
    }
    return this.found.length;
  }

  /** From the end: each miss at an index leaves only the prefixes that end before it. */
  private findWindow(request: Request, limit: number): number {
    const { found } = this;
    this.hashUpTo(request, limit);
    let end = limit;
    let first = this.firstReadBlock(end * this.blockSize);
    for (let index = end - 1; index >= first; index--) {
      const block = this.pool.lookup(request.hashes, index);
      found[index] = block;
      if (block >= 0) continue;
      end = index;
      first = this.firstReadBlock(end * this.blockSize);
    }
    found.length = end;
    found.fill(nullBlock, 0, first);
    return end - first;
  }

  /** How many of the blocks that findCached() found are free now, and will not be if taken. */
  get numFoundFree(): number {
    let count = 0;
    for (const block of this.found) if (block !== nullBlock && this.pool.isFree(block)) count++;
    return count;
  }

  takeCached(request: Request): void {
    for (const block of this.found) {
      if (block === nullBlock) request.numReleased++;
      else this.pool.acquire(block);
      request.addBlock(block);
    }
    request.numRegistered = this.found.length;
  }

  /**
   * Gives back what no step after `untilStep`, the last that was sent for it, reads of a request. The
   * cache keeps these blocks until they are needed.
   */
  releaseUnread(request: Request, untilStep: number): void {
    const { slidingWindow, enablePrefixCaching } = this.options;
    if (slidingWindow === 0) return;
    let end = this.firstReadBlock(request.numComputedTokens);
    // What has no hash yet waits for it.
    if (enablePrefixCaching) end = Math.min(end, request.numRegistered);
    for (; request.numReleased < end; request.numReleased++) {
      this.pool.release(request.blockTable[request.numReleased]!, untilStep);
      request.blockTable[request.numReleased] = nullBlock;
    }
  }

  /** Blocks that a request needs beyond its own to hold `numTokens` tokens. */
  numMissing(request: Request, numTokens: number): number {
    return this.blocksFor(numTokens) - request.numBlocks;
  }

  /** Extends the block table to hold `numTokens` tokens; the caller has seen to free blocks. */
  allocate(request: Request, numTokens: number): void {
    const numBlocks = this.blocksFor(numTokens);
    while (request.numBlocks < numBlocks) {
      const block = this.pool.allocate();
      if (block < 0) throw new Error('no free block');
      request.addBlock(block);
    }
  }

  /**
   * Enters blocks into the cache whose tokens are known and, up to numTokens of them, computed by
   * steps that were sent.
   */
  registerFull(request: Request, numTokens: number): void {
    if (!this.options.enablePrefixCaching) return;
    const numFull = Math.floor(Math.min(numTokens, request.numComputedTokens) / this.blockSize);
    for (; request.numRegistered < numFull; request.numRegistered++) {
      this.hashUpTo(request, request.numRegistered + 1);
      const block = request.blockTable[request.numRegistered]!;
      this.pool.register(block, request.hashes, request.numRegistered);
    }
  }

  /** Takes the blocks of a request whose contents cannot be trusted out of the cache. */
  unregister(request: Request): void {
    for (let i = request.numReleased; i < request.numBlocks; i++)
      this.pool.unregister(request.blockTable[i]!);
    // What it has given back already is found by its hash, as others would.
    for (let i = 0; i < Math.min(request.numReleased, request.numHashed); i++)
      for (let block = this.pool.lookup(request.hashes, i); block >= 0;) {
        this.pool.unregister(block);
        block = this.pool.lookup(request.hashes, i);
      }
  }

  /** Gives all blocks back, the last first, so that a prefix outlives what follows it. */
  release(request: Request, untilStep: number): void {
    for (let i = request.numBlocks - 1; i >= request.numReleased; i--)
      this.pool.release(request.blockTable[i]!, untilStep);
    request.numBlocks = 0;
    request.numReleased = 0;
    request.numRegistered = 0;
  }

  /** Index of the first block that the query at `position`, and any later one, may read. */
  private firstReadBlock(position: number): number {
    return Math.floor(firstReadPosition(position, this.options.slidingWindow) / this.blockSize);
  }

  private hashUpTo(request: Request, numBlocks: number): void {
    if (request.numHashed >= numBlocks) return;
    request.reserveHashes(numBlocks);
    for (; request.numHashed < numBlocks; request.numHashed++) {
      const index = request.numHashed;
      const extraKeys = index === 0 ? request.extraKeys : null;
      const start = index * this.blockSize;
      this.hasher.hashBlock(request.hashes, index, request.tokenIds, start, extraKeys);
    }
  }
}
