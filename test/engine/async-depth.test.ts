// How many steps the engine sends ahead, by what the device waited for it.
import t from 'tap';
import { AsyncDepth } from '../../engine/async-depth.ts';
import { makeServer, prompt } from './virtual.ts';

/** Runs steps of one token, each sent late, and returns the depth behind them. */
function runSteps(depth: AsyncDepth, count: number, busyUs: number, waitUs: number): number {
  for (let i = 0; i < count; i++) {
    depth.sent(i + 1, true);
    depth.executed(i + 1, 1, busyUs, waitUs);
  }
  return depth.current;
}

t.test('steps that the device waits for make the depth greater, calm ones less', (t) => {
  const depth = new AsyncDepth(2, 8);
  t.equal(runSteps(depth, 640, 1000, 9), 2, 'less than a hundredth of the time');
  t.equal(runSteps(depth, 1, 1000, 700), 3, 'one wait of more than a hundredth of 64 steps');
  t.equal(runSteps(depth, 1023, 1000, 0), 3);
  t.equal(runSteps(depth, 1, 1000, 0), 2, 'a calm while later');
  t.equal(runSteps(depth, 5000, 1000, 0), 2, 'never less than the least');
  t.equal(runSteps(depth, 100, 1000, 700), 8, 'nor more than the most');
  t.end();
});

t.test('waits that another depth would not have saved count for nothing', (t) => {
  const depth = new AsyncDepth(2, 8);
  for (let step = 1; step < 100; step++) {
    depth.sent(step, false);
    depth.executed(step, 1, 1000, 50_000);
  }
  t.equal(depth.current, 2);
  depth.sent(100, true);
  depth.sent(101, false);
  depth.executed(100, 1, 1000, 50_000);
  t.equal(depth.current, 2, 'nor what the step before such a one waited');
  t.end();
});

t.test('steps in flight take 15 ms together at most, or are the least', (t) => {
  for (const [busyUs, most] of [
    [1000, 8],
    [4300, 3],
    [7000, 2],
    [50_000, 2],
  ] as const)
    t.equal(runSteps(new AsyncDepth(2, 8), 1000, busyUs, busyUs), most, `${busyUs} us`);
  const depth = new AsyncDepth(2, 8);
  t.equal(runSteps(depth, 100, 1000, 700), 8);
  t.equal(runSteps(depth, 200, 7000, 0), 2, 'also once they have become longer');
  t.end();
});

t.test('no more than the least are sent behind a step that is larger than others', (t) => {
  const depth = new AsyncDepth(2, 8);
  runSteps(depth, 100, 1000, 700);
  t.notOk(depth.isReached(7, 1));
  t.ok(depth.isReached(8, 1));
  t.notOk(depth.isReached(1, 3));
  t.ok(depth.isReached(2, 3));
  t.end();
});

t.test('an engine that hears late of results keeps its worker busy all the same', (t) => {
  const sampling = { maxTokens: 1500 };
  const waits = [2, 8].map((asyncDepth) => {
    const server = makeServer({
      scheduler: { asyncDepth },
      leastAsyncDepth: 2,
      stepUs: () => 1000,
      // Its processes get no processor for 3 ms, time and again.
      reportUs: (step) => (step % 50 < 3 ? 3000 : 200),
    });
    const startUs = server.nowUs;
    server.add({ requestId: 1, prompt: prompt(20), sampling });
    server.run();
    t.match(server.outcome(1), { finishReason: 'length', tokenIds: { length: 1500 } });
    return (server.nowUs - startUs - server.busyUs) / (server.nowUs - startUs);
  });
  t.ok(waits[0]! > 0.03, `of the time, with two steps in flight: ${waits[0]}`);
  t.ok(waits[1]! < 0.01, `with as many as it takes: ${waits[1]}`);
  t.end();
});

t.test('the pause between two requests is none that the host has made', (t) => {
  const server = makeServer({
    scheduler: { asyncDepth: 8 },
    leastAsyncDepth: 2,
    stepUs: () => 1000,
  });
  let most = 0;
  server.onRun = () => (most = Math.max(most, server.core.scheduler.steps.length));
  for (let requestId = 1; requestId <= 20; requestId++) {
    server.nowUs += 1_000_000;
    // One token, so that its first step is like any other.
    server.add({ requestId, prompt: prompt(1), sampling: { maxTokens: 50 } });
    server.run();
  }
  t.equal(most, 2);
  t.end();
});
