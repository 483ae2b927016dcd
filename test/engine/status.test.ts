// What the engine tells of itself, and what follows from how fast requests end, on virtual time.
import t from 'tap';
import type { EngineStatus, Rejected } from '../../common/wire/messages.ts';
import { makeServer, pass, prompt } from './virtual.ts';

t.test('a full queue says when to try again, by the rate at which requests end', (t) => {
  const server = makeServer({
    numBlocks: 64,
    scheduler: { maxNumSeqs: 1, maxModelLen: 64, maxQueuedRequests: 40 },
  });
  let requestId = 0;
  const add = () =>
    server.add({ requestId: requestId++, prompt: prompt(5), sampling: { maxTokens: 1 } });
  const retryAfterMs = () => {
    for (let i = 0; i < 42; i++) add();
    const { kind, error } = server.toFrontend.at(-1)!.message as Rejected;
    t.match({ kind, error }, { kind: 'rejected', error: { code: 'queue_full' } });
    server.core.endAll({ code: 'internal', message: 'enough' });
    server.run();
    return error.retryAfterMs;
  };
  t.equal(retryAfterMs(), 1000, 'nothing is known yet');
  pass(server, 120_000);
  for (let i = 0; i < 600; i++) {
    add();
    server.run();
    pass(server, 100);
  }
  server.core.tick();
  const { status } = server.core;
  // A step takes 3 ms.
  const perSecond = 1000 / 103;
  t.ok(Math.abs(status.endedPerSecond / perSecond - 1) < 0.01, `${status.endedPerSecond}`);
  pass(server, 10_000);
  const rate = status.endedPerSecond;
  t.ok(Math.abs(rate / perSecond - Math.exp(-1)) < 0.01, `${rate} after ten seconds of nothing`);
  // By the rate of the tick before.
  t.ok(Math.abs((retryAfterMs()! * rate) / 41_000 - 1) < 0.02);
  pass(server, 200_000);
  t.equal(retryAfterMs(), 60_000, 'and a minute at most');
  t.end();
});

t.test('status comes four times a second while there is work', (t) => {
  const server = makeServer({ numBlocks: 11, scheduler: { maxModelLen: 161 } });
  server.add({ requestId: 1, prompt: prompt(100), sampling: { maxTokens: 61 } });
  const { kv } = server.core.scheduler;
  while (kv.pool.numFree > 0) server.step();
  const statuses: { ms: number; status: EngineStatus }[] = [];
  for (let i = 0; i < 60; i++) {
    const before = server.toFrontend.length;
    server.nowUs += 50_000;
    server.core.tick();
    for (const { message } of server.toFrontend.slice(before))
      statuses.push({ ms: server.nowUs / 1000, status: message as EngineStatus });
  }
  const gaps = statuses.slice(1).map(({ ms }, i) => ms - statuses[i]!.ms);
  t.same(gaps, Array(11).fill(250));
  t.equal(statuses[0]!.status.kvCacheUsage, 1, 'every block but the null block is in use');
  t.end();
});
