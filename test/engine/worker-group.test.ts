// Several ranks as the engine sees them: ready together, lost together, and odd ones named.
import t from 'tap';
import type { StepOutput, WorkerReady } from '../../common/wire/messages.ts';
import { WorkerGroup } from '../../engine/worker-group.ts';

const ready = (rank: number, numBlocks: number) =>
  ({ kind: 'workerReady', rank, numBlocks, memory: { weights: rank } }) as unknown as WorkerReady;
const answer = (step: number, hash: number) =>
  ({ kind: 'stepOutput', step, hash }) as unknown as StepOutput;

function group(numRanks: number): WorkerGroup {
  const workers = new WorkerGroup(numRanks, 60_000);
  for (let rank = 0; rank < numRanks; rank++) {
    workers.join(rank, 0, 0);
    workers.setReady(rank, ready(rank, 100 - rank));
  }
  return workers;
}

t.test('ranks are ready when all are, with the fewest blocks', (t) => {
  const workers = new WorkerGroup(2, 60_000);
  workers.join(0, 0, 0);
  workers.setReady(0, ready(0, 100));
  t.equal(workers.ready, null);
  workers.join(1, 0, 0);
  workers.setReady(1, ready(1, 90));
  t.equal(workers.ready?.numBlocks, 90);
  t.same(workers.memory, { 'worker 0': { weights: 0 }, 'worker 1': { weights: 1 } });
  t.end();
});

t.test('a step is done when every rank has answered it alike', (t) => {
  const workers = group(2);
  workers.addOutput(0, answer(1, 5), 0);
  t.equal(workers.takeOutput(1), null);
  workers.addOutput(1, answer(1, 5), 0);
  t.match(workers.takeOutput(1), { step: 1, hash: 5 });
  t.end();
});

t.test('the rank that disagrees with most is named, of two the second', (t) => {
  const odd = (...hashes: number[]) => {
    const workers = group(hashes.length);
    hashes.forEach((hash, rank) => workers.addOutput(rank, answer(7, hash), 0));
    return workers.takeOutput(7);
  };
  t.match(odd(1, 2), { rank: 1, reason: /disagrees with the others after step 7/ });
  t.match(odd(2, 1, 1, 1), { rank: 0 });
  t.match(odd(1, 1, 2, 1), { rank: 2 });
  const workers = group(2);
  workers.addOutput(0, answer(7, 1), 0);
  workers.addOutput(1, answer(8, 1), 0);
  t.match(workers.takeOutput(7), { rank: 1, reason: 'answered step 8 instead of 7' });
  t.end();
});

t.test('where a rank was last is told of one that is gone or silent', (t) => {
  const workers = group(2);
  t.equal(workers.lastPlace(1), '', 'it has had no step');
  workers.heartbeat(1, { kind: 'heartbeat', rank: 1, step: 3, opIndex: 20 }, 1_000);
  t.equal(workers.lastPlace(1), '; it was last heard of in op 20 of step 3');
  t.equal(workers.lastPlace(0), '');
  workers.heartbeat(0, { kind: 'heartbeat', rank: 0, step: 3, opIndex: 20 }, 6_000);
  t.match(workers.findFault(6_500), {
    rank: 1,
    reason: 'no sign of life for 5500 ms; it was last heard of in op 20 of step 3',
  });
  workers.addOutput(1, answer(3, 5), 7_000);
  t.equal(workers.lastPlace(1), '; it had answered step 3');
  workers.loseAll();
  workers.join(1, 1, 8_000);
  t.equal(workers.lastPlace(1), '', 'another is there now');
  t.end();
});

t.test('a rank moves by its ops and by its steps', (t) => {
  const workers = group(1);
  workers.wakeUp(0);
  const beat = (step: number, opIndex: number, nowMs: number) => {
    workers.heartbeat(0, { kind: 'heartbeat', rank: 0, step, opIndex }, nowMs);
    return workers.findFault(nowMs);
  };
  for (let i = 1; i <= 100; i++) t.equal(beat(i, 3, 1000 * i), null, 'each step is seen in op 3');
  for (let i = 1; i <= 60; i++) t.equal(beat(100, 3, 100_000 + 1000 * i), null);
  t.match(beat(100, 3, 160_001), { rank: 0, reason: 'hung in op 3 of step 100 for 60000 ms' });
  t.end();
});

t.test('when one is lost all are, until every rank of a newer generation is ready', (t) => {
  const workers = group(3);
  workers.addOutput(0, answer(1, 5), 0);
  t.ok(workers.isCurrent(1, 0));
  workers.loseAll();
  t.equal(workers.ready, null);
  t.notOk(workers.isCurrent(0, 0), 'news of the others is old news');
  t.notOk(workers.join(0, 0, 0), 'one of the old generation does not come back');
  for (const rank of [2, 0, 1]) {
    t.equal(workers.ready, null);
    t.ok(workers.join(rank, 1, 0));
    workers.setReady(rank, ready(rank, 50));
  }
  t.equal(workers.ready?.numBlocks, 50);
  t.equal(workers.takeOutput(1), null, 'an old answer is forgotten');
  t.end();
});

t.test('a generation that dies while it starts does not mix with the next', (t) => {
  const workers = group(2);
  workers.loseAll();
  t.notOk(workers.join(1, 0, 0), 'what is left of the first does not come back');
  workers.join(0, 1, 0);
  workers.setReady(0, ready(0, 50));
  t.ok(workers.join(1, 2, 0), 'rank 1 of the generation after');
  workers.setReady(1, ready(1, 50));
  t.equal(workers.ready, null, 'rank 0 is of the one before');
  t.notOk(workers.join(0, 1, 0));
  t.end();
});

t.test('a worker that is alone may come back', (t) => {
  const workers = group(1);
  workers.loseAll();
  t.ok(workers.join(0, 0, 0));
  t.end();
});
