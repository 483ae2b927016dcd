// Sliding windows in the KV cache manager: what a request holds, what it gives back, and what a hit
// needs. That nothing is given back too early is the fuzz's to show.
import t from 'tap';
import { firstReadPosition, longestHeld, maxBlocksHeld } from '../../common/kv-window.ts';
import { VirtualServer } from '../../scripts/virtual-server.ts';

const slidingWindow = 40;

t.test('what is still read begins at a key tile', (t) => {
  t.equal(firstReadPosition(1000, 0), 0);
  t.equal(firstReadPosition(102, slidingWindow), 0, 'position 63 is read');
  t.equal(firstReadPosition(103, slidingWindow), 64);
  t.equal(firstReadPosition(5, slidingWindow), 0);
  t.end();
});

t.test('the longest request that fits is found, and none longer', (t) => {
  const sizes = { blockSize: 16, maxNumBatchedTokens: 32 };
  for (const window of [0, slidingWindow])
    for (let numBlocks = 1; numBlocks < 16; numBlocks++) {
      const longest = longestHeld(1000, numBlocks, window, sizes);
      const fits = (length: number) => maxBlocksHeld(length, window, sizes) <= numBlocks;
      t.ok(fits(longest), `${longest} tokens in ${numBlocks} blocks`);
      t.ok(longest === 1000 || !fits(longest + 1));
    }
  t.end();
});

function longRequest(numBlocks: number, enablePrefixCaching: boolean, isNan?: () => boolean) {
  const sizes = { blockSize: 16, maxNumBatchedTokens: 32 };
  const server = new VirtualServer({
    numBlocks,
    scheduler: { ...sizes, maxNumSeqs: 4, maxModelLen: 1024, slidingWindow, enablePrefixCaching },
    ...(isNan && { isNan }),
  });
  const prompt = Array.from({ length: 500 }, (_, i) => 3 + (i % 90));
  const add = (requestId: number, maxTokens: number) =>
    server.add({ requestId, prompt, sampling: { maxTokens, ignoreEos: true, seed: 1 } });
  return { server, add };
}

for (const enablePrefixCaching of [true, false])
  t.test(`a pool of the most that is held is enough, cache ${enablePrefixCaching}`, (t) => {
    const most = maxBlocksHeld(1024, slidingWindow, { blockSize: 16, maxNumBatchedTokens: 32 });
    t.ok(most < 16, `${most} blocks`);
    const { server, add } = longRequest(1 + most, enablePrefixCaching);
    let peak = 0;
    server.onRun = () => (peak = Math.max(peak, server.core.scheduler.kv.pool.numUsed));
    add(1, 500);
    server.run();
    t.match(server.outcome(1), { finishReason: 'length' });
    t.equal(server.outcome(1)!.tokenIds.length, 500);
    t.ok(peak > 0 && peak <= most, `${peak} of ${most}`);
    t.equal(server.core.scheduler.stats.numPreemptions, 0);
    t.end();
  });

t.test('a hit needs the blocks that the next token reads, and no more', (t) => {
  const { server, add } = longRequest(4096, true);
  add(1, 1);
  server.run();
  const { kv } = server.core.scheduler;
  const numCached = kv.pool.numCached;
  t.equal(numCached, 31);
  add(2, 1);
  server.run();
  t.equal(server.outcome(2)!.numCachedTokens, 496);
  t.end();
});

t.test('blocks of a NaN leave the cache, those that were given back too', (t) => {
  const { server, add } = longRequest(4096, true, () => true);
  add(1, 5);
  server.run();
  t.match(server.outcome(1), { error: { code: 'invalid_logits' } });
  t.equal(server.core.scheduler.kv.pool.numCached, 0);
  t.end();
});
