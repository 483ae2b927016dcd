// The blocks of one KV group: reference counts, holds of steps in flight, and the map from content
// hash to block that is the prefix cache. All state is in columns indexed by block id. Block 0 is
// the null block: never given out, never hit. Knows nothing of requests.
import { hashWords } from './block-hash.ts';
import { IdLists } from './id-lists.ts';

export const nullBlock = 0;

export class BlockPool {
  readonly numBlocks: number;
  /** Called when a block's contents lose their meaning, before it can be given out again. */
  onPoison: ((block: number) => void) | null = null;
  private readonly lists: IdLists;
  private readonly refCount: Int32Array;
  /** [numBlocks] last step in flight that may touch the block; f64 because steps outgrow i32. */
  private readonly heldUntil: Float64Array;
  /** [numBlocks * hashWords], valid where hasHash. */
  private readonly hashes: Int32Array;
  private readonly hasHash: Uint8Array;
  /** Chained hash table: first block of a bucket, next block in its chain; 0 ends a chain. */
  private readonly buckets: Int32Array;
  private readonly chain: Int32Array;
  private numHashed = 0;

  /** `retired` is the last step that has retired already. */
  constructor(numBlocks: number, maxInFlight: number, retired = 0) {
    if (numBlocks < 2) throw new Error('a block pool needs the null block and one more');
    this.numBlocks = numBlocks;
    this.refCount = new Int32Array(numBlocks);
    this.heldUntil = new Float64Array(numBlocks);
    this.hashes = new Int32Array(numBlocks * hashWords);
    this.hasHash = new Uint8Array(numBlocks);
    this.buckets = new Int32Array(2 ** Math.ceil(Math.log2(numBlocks)));
    this.chain = new Int32Array(numBlocks);
    // Blocks without a hash are of no further use and are taken first.
    this.lists = new IdLists(numBlocks, maxInFlight, (block) => {
      if (this.hasHash[block]) return false;
      this.onPoison?.(block);
      return true;
    });
    this.lists.retired = retired;
    this.lists.remove(nullBlock);
  }

  get numFree(): number {
    return this.lists.numFree;
  }

  /** Blocks that nobody refers to but that a step in flight may still touch. */
  get numHeld(): number {
    return this.lists.numHeld;
  }

  get numCached(): number {
    return this.numHashed;
  }

  /** In use by a request, of numBlocks - 1. */
  get numUsed(): number {
    return this.numBlocks - 1 - this.numFree - this.numHeld;
  }

  isFree(block: number): boolean {
    return this.lists.isFree(block);
  }

  /** A free block with one reference and no hash; -1 if none is free. */
  allocate(): number {
    const block = this.lists.take();
    if (block < 0) return -1;
    if (this.hasHash[block]) {
      this.unregister(block);
      this.onPoison?.(block);
    }
    this.refCount[block] = 1;
    return block;
  }

  /** One more reference to a block that lookup() has found. */
  acquire(block: number): void {
    const count = this.refCount[block]!;
    if (count === 0) this.lists.remove(block);
    this.refCount[block] = count + 1;
  }

  /** Drops a reference; without any the block is free, or held until `untilStep` has retired. */
  release(block: number, untilStep: number): void {
    const count = this.refCount[block]! - 1;
    this.refCount[block] = count;
    if (count < 0) throw new Error(`block ${block} is released more often than acquired`);
    if (untilStep > this.heldUntil[block]!) this.heldUntil[block] = untilStep;
    if (count > 0) return;
    this.lists.release(block, this.heldUntil[block]!);
  }

  retire(step: number): void {
    this.lists.retire(step);
  }

  /** The block with hash `index` of `hashes`, or -1. */
  lookup(hashes: Int32Array, index: number): number {
    const at = index * hashWords;
    for (let block = this.buckets[this.bucketOf(hashes, at)]!; block; block = this.chain[block]!)
      if (sameHash(this.hashes, block * hashWords, hashes, at)) return block;
    return -1;
  }

  /** Enters a block into the prefix cache; another block may already have the same hash. */
  register(block: number, hashes: Int32Array, index: number): void {
    if (this.hasHash[block]) throw new Error(`block ${block} has a hash already`);
    const at = index * hashWords;
    for (let i = 0; i < hashWords; i++) this.hashes[block * hashWords + i] = hashes[at + i]!;
    this.hasHash[block] = 1;
    this.numHashed++;
    // At the end of its chain, so that the oldest of equal blocks is the one that is hit.
    const bucket = this.bucketOf(hashes, at);
    this.chain[block] = 0;
    let last = this.buckets[bucket]!;
    if (!last) this.buckets[bucket] = block;
    else {
      while (this.chain[last]) last = this.chain[last]!;
      this.chain[last] = block;
    }
  }

  /** Takes a block out of the prefix cache, if it is there. */
  unregister(block: number): void {
    if (!this.hasHash[block]) return;
    this.hasHash[block] = 0;
    this.numHashed--;
    const bucket = this.bucketOf(this.hashes, block * hashWords);
    let at = this.buckets[bucket]!;
    if (at === block) this.buckets[bucket] = this.chain[block]!;
    else {
      while (this.chain[at] !== block) at = this.chain[at]!;
      this.chain[at] = this.chain[block]!;
    }
  }

  resetPrefixCache(): void {
    for (let block = 1; block < this.numBlocks; block++) {
      if (!this.hasHash[block]) continue;
      this.unregister(block);
      if (this.isFree(block)) this.onPoison?.(block);
    }
  }

  /** `references` counts, from scratch, how many block table entries name each block. */
  checkIntegrity(references: Int32Array): void {
    this.lists.checkIntegrity();
    const inChains = new Uint8Array(this.numBlocks);
    for (let bucket = 0; bucket < this.buckets.length; bucket++)
      for (let block = this.buckets[bucket]!; block; block = this.chain[block]!) {
        if (inChains[block] === 1) throw new Error(`block ${block} is in two chains`);
        inChains[block] = 1;
        if (this.bucketOf(this.hashes, block * hashWords) !== bucket)
          throw new Error(`block ${block} is in a wrong chain`);
      }
    let numHashed = 0;
    for (let block = 0; block < this.numBlocks; block++) {
      const refs = block === nullBlock ? 0 : references[block]!;
      if (this.refCount[block] !== refs)
        throw new Error(`block ${block} counts ${this.refCount[block]!} of ${refs} references`);
      const inUse = refs > 0 || block === nullBlock;
      if (this.lists.isInUse(block) !== inUse) throw new Error(`block ${block} is in a wrong list`);
      if (!inUse && this.isFree(block) !== this.heldUntil[block]! <= this.lists.retired)
        throw new Error(`block ${block} is free before its steps have retired, or held after`);
      if (this.hasHash[block] !== inChains[block])
        throw new Error(`block ${block} has a hash and no chain, or the reverse`);
      numHashed += this.hasHash[block]!;
    }
    if (numHashed !== this.numHashed) throw new Error('numCached is wrong');
  }

  private bucketOf(hashes: Int32Array, at: number): number {
    return hashes[at]! & (this.buckets.length - 1);
  }
}

function sameHash(a: Int32Array, aAt: number, b: Int32Array, bAt: number): boolean {
  for (let i = 0; i < hashWords; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}
