// The blocks of requests in one KV group: finds what the prefix cache has, takes the rest from the
// pool, enters full blocks into the cache, gives all back. A model with sliding windows will have
// one of these for each group, and a hit is then what all groups accept.
import { BlockHasher } from './block-hash.ts';
import { BlockPool } from './block-pool.ts';
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
  readonly maxInFlight: number;
  readonly enablePrefixCaching: boolean;
  readonly prefixCachingSeed: string | null;
}

export class KvCacheManager {
  pool: BlockPool;
  readonly blockSize: number;
  private readonly hasher: BlockHasher;
  private readonly enablePrefixCaching: boolean;
  private readonly maxInFlight: number;
  /** Result of the last findCached(). */
  private readonly found: number[] = [];

  constructor(options: KvCacheOptions) {
    this.pool = new BlockPool(options.numBlocks, options.maxInFlight);
    this.maxInFlight = options.maxInFlight;
    this.blockSize = options.blockSize;
    this.hasher = new BlockHasher(options.blockSize, options.prefixCachingSeed);
    this.enablePrefixCaching = options.enablePrefixCaching;
  }

  /** The cache was lost while nobody had blocks: a fresh pool, the same hashes. */
  restart(numBlocks: number, retired: number): void {
    this.pool = new BlockPool(numBlocks, this.maxInFlight, retired);
  }

  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.blockSize);
  }

  /**
   * Number of leading blocks of a waiting request that the cache has. The last token is never taken
   * from the cache: its logits are needed. Follow with takeCached() or forget it.
   */
  findCached(request: Request): number {
    this.found.length = 0;
    if (!this.enablePrefixCaching || request.wantsPromptLogprobs) return 0;
    const limit = Math.floor((request.numTokens - 1) / this.blockSize);
    for (let index = 0; index < limit; index++) {
      this.hashUpTo(request, index + 1);
      const block = this.pool.lookup(request.hashes, index);
      if (block < 0) break;
      this.found.push(block);
    }
    return this.found.length;
  }

  /** How many of the blocks that findCached() found are free now, and will not be if taken. */
  get numFoundFree(): number {
    let count = 0;
    for (const block of this.found) if (this.pool.isFree(block)) count++;
    return count;
  }

  takeCached(request: Request): void {
    for (const block of this.found) {
      this.pool.acquire(block);
      request.addBlock(block);
    }
    request.numRegistered = this.found.length;
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
    if (!this.enablePrefixCaching) return;
    const numFull = Math.floor(Math.min(numTokens, request.numComputedTokens) / this.blockSize);
    for (; request.numRegistered < numFull; request.numRegistered++) {
      this.hashUpTo(request, request.numRegistered + 1);
      const block = request.blockTable[request.numRegistered]!;
      this.pool.register(block, request.hashes, request.numRegistered);
    }
  }

  /** Takes the blocks of a request whose contents cannot be trusted out of the cache. */
  unregister(request: Request): void {
    for (let i = 0; i < request.numBlocks; i++) this.pool.unregister(request.blockTable[i]!);
  }

  /** Gives all blocks back, the last first, so that a prefix outlives what follows it. */
  release(request: Request, untilStep: number): void {
    for (let i = request.numBlocks - 1; i >= 0; i--)
      this.pool.release(request.blockTable[i]!, untilStep);
    request.numBlocks = 0;
    request.numRegistered = 0;
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
