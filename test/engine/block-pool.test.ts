import t from 'tap';
import { hashWords } from '../../engine/block-hash.ts';
import { BlockPool, nullBlock } from '../../engine/block-pool.ts';
import { Random } from './random.ts';

/** A hash that is `value` in every word; all in one bucket if they agree in the low bits. */
const hashOf = (value: number) => new Int32Array(hashWords).fill(value);

t.test('BlockPool never gives out the null block, and each other block once', (t) => {
  const pool = new BlockPool(5, 2);
  const blocks = [0, 1, 2, 3].map(() => pool.allocate());
  t.same([...blocks].sort(), [1, 2, 3, 4]);
  t.notOk(blocks.includes(nullBlock));
  t.equal(pool.allocate(), -1);
  t.equal(pool.numUsed, 4);
  t.end();
});

t.test('BlockPool holds a block until the last step that may touch it has retired', (t) => {
  const pool = new BlockPool(2, 4);
  const block = pool.allocate();
  pool.acquire(block);
  // The later step lets go first: the earlier one must not free what the later still reads.
  pool.release(block, 3);
  pool.release(block, 1);
  pool.retire(1);
  pool.retire(2);
  t.equal(pool.allocate(), -1);
  t.equal(pool.numHeld, 1);
  pool.retire(3);
  t.equal(pool.allocate(), block);
  t.end();
});

t.test('BlockPool lets a held block with a hash be hit', (t) => {
  const pool = new BlockPool(2, 2);
  const block = pool.allocate();
  pool.register(block, hashOf(7), 0);
  pool.release(block, 1);
  t.equal(pool.lookup(hashOf(7), 0), block);
  pool.acquire(block);
  pool.retire(1);
  t.equal(pool.numFree, 0);
  pool.release(block, 1);
  t.equal(pool.numFree, 1);
  t.end();
});

t.test('BlockPool takes blocks without a hash first, then the longest unused', (t) => {
  const pool = new BlockPool(5, 1);
  const [a, b, c, d] = [0, 1, 2, 3].map(() => pool.allocate()) as [number, number, number, number];
  for (const block of [a, b, c]) pool.register(block, hashOf(block), 0);
  for (const block of [b, d, c, a]) pool.release(block, 0);
  const poisoned: number[] = [];
  pool.onPoison = (block) => poisoned.push(block);
  t.same(
    [0, 1, 2, 3].map(() => pool.allocate()),
    [d, b, c, a],
  );
  t.same(poisoned, [b, c, a], 'evicted blocks are poisoned, in order');
  t.equal(pool.lookup(hashOf(a), 0), -1);
  t.end();
});

t.test('BlockPool poisons a block when it is free, not while it is held', (t) => {
  const pool = new BlockPool(2, 2);
  const poisoned: number[] = [];
  pool.onPoison = (block) => poisoned.push(block);
  const block = pool.allocate();
  pool.release(block, 2);
  pool.retire(1);
  t.same(poisoned, []);
  pool.retire(2);
  t.same(poisoned, [block]);
  t.end();
});

t.test('BlockPool.resetPrefixCache forgets every hash', (t) => {
  const pool = new BlockPool(4, 1);
  const blocks = [0, 1, 2].map(() => pool.allocate());
  blocks.forEach((block) => pool.register(block, hashOf(block * 8), 0));
  pool.release(blocks[1]!, 0);
  const poisoned: number[] = [];
  pool.onPoison = (block) => poisoned.push(block);
  pool.resetPrefixCache();
  t.same(poisoned, [blocks[1]], 'what requests still read keeps its contents');
  for (const block of blocks) t.equal(pool.lookup(hashOf(block * 8), 0), -1);
  t.equal(pool.numCached, 0);
  pool.checkIntegrity(Int32Array.of(0, 1, 0, 1));
  t.end();
});

t.test('BlockPool.lookup tells hashes apart by each of their words', (t) => {
  const pool = new BlockPool(2, 1);
  pool.register(pool.allocate(), hashOf(8), 0);
  t.equal(pool.lookup(hashOf(8), 0), 1);
  for (let word = 0; word < hashWords; word++) {
    const other = hashOf(8);
    // The same bucket.
    other[word] = 8 + 1024;
    t.equal(pool.lookup(other, 0), -1, `word ${word}`);
  }
  t.end();
});

t.test('BlockPool refuses misuse', (t) => {
  const pool = new BlockPool(3, 1);
  const block = pool.allocate();
  pool.release(block, 0);
  t.throws(() => pool.release(block, 0), /more often/);
  t.throws(() => new BlockPool(1, 1), /null block/);
  t.end();
});

t.test('BlockPool keeps its invariants in random runs', (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed);
    const numBlocks = random.int(2, 40);
    const depth = random.int(1, 8);
    const pool = new BlockPool(numBlocks, depth);
    const references = new Int32Array(numBlocks);
    const lastUse = new Float64Array(numBlocks);
    const held: number[] = [];
    let sent = 0;
    let retired = 0;
    for (let i = 0; i < 600; i++) {
      const action = random.int(0, 5);
      if (action === 0 && sent - retired < depth) sent++;
      else if (action === 1 && retired < sent) pool.retire(++retired);
      else if (action === 2) {
        const block = pool.allocate();
        if (block < 0) t.equal(pool.numFree, 0);
        else {
          if (lastUse[block]! > retired) t.fail(`block ${block} is reused while in flight`);
          references[block] = 1;
          held.push(block);
        }
      } else if (action === 3 && held.length > 0) {
        const block = held.splice(random.int(0, held.length - 1), 1)[0]!;
        const untilStep = random.int(retired, sent);
        lastUse[block] = Math.max(lastUse[block]!, untilStep);
        references[block]!--;
        pool.release(block, untilStep);
      } else if (action === 4 && held.length > 0) {
        const block = random.pick(held);
        pool.unregister(block);
        pool.register(block, hashOf(random.int(0, 12)), 0);
      } else {
        const hash = hashOf(random.int(0, 12));
        const block = pool.lookup(hash, 0);
        if (block >= 0) {
          pool.acquire(block);
          references[block]!++;
          held.push(block);
        }
      }
      pool.checkIntegrity(references);
    }
  }
  t.pass();
  t.end();
});
