// Detokenizer and workers that are lost, silent or hung, as the engine sees them, on virtual time.
import t from 'tap';
import type { Rejected } from '../../common/wire/messages.ts';
import { silenceLimitMs } from '../../common/own-pauses.ts';
import { makeServer, pass, prompt } from './virtual.ts';

t.test('a lost detokenizer ends all requests; new ones wait for the next', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  for (let i = 0; i < 9; i++) server.step();
  server.core.detokenizerGone(0, 0);
  t.match(server.toFrontend.at(-1)!.message, { kind: 'peerLost', role: 'detokenizer' });
  t.equal(server.core.requests.size, 0);
  server.add({ requestId: 2, prompt: prompt(5) });
  t.match((server.toFrontend.at(-1)!.message as Rejected).error, { code: 'detokenizer_lost' });
  server.run(1000);
  server.core.detokenizerJoined();
  server.add({ requestId: 3, prompt: prompt(5), sampling: { maxTokens: 4 } });
  server.run(1000);
  t.match(server.outcome(3), { finishReason: 'length' });
  t.end();
});

t.test('a lost worker ends what was scheduled and keeps what was not', (t) => {
  const server = makeServer({ scheduler: { maxNumSeqs: 2 } });
  for (let i = 0; i < 4; i++)
    server.add({ requestId: i, prompt: prompt(40), sampling: { maxTokens: 30 } });
  for (let i = 0; i < 9; i++) server.step();
  server.killWorker();
  server.run(1000);
  for (const id of [0, 1])
    t.match(server.outcome(id), { finishReason: 'error', error: { code: 'worker_lost' } });
  t.equal(server.core.requests.size, 2);
  server.add({ requestId: 9, prompt: prompt(40), sampling: { maxTokens: 30 } });
  server.replaceWorker();
  server.run(5000);
  for (const id of [2, 3, 9]) t.match(server.outcome(id), { finishReason: 'length' });
  t.equal(server.outcome(2)!.numCachedTokens, 0, 'the prefix cache went with the worker');
  t.end();
});

t.test('a worker that takes the place of another ends what that one had', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  for (let i = 0; i < 5; i++) server.step();
  server.replaceWorker();
  server.add({ requestId: 2, prompt: prompt(5), sampling: { maxTokens: 4 } });
  server.run(1000);
  t.match(server.outcome(1), { finishReason: 'error', error: { code: 'worker_lost' } });
  t.match(server.outcome(2), { finishReason: 'length' });
  t.notOk(server.core.workerJoined(0, 0), 'an older one comes too late');
  t.end();
});

t.test('who was stopped itself does not blame others for their silence', (t) => {
  const server = makeServer({ acknowledge: false });
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  for (let i = 0; i < 8; i++) server.step();
  server.core.tick();
  server.nowUs += 60_000_000;
  server.core.tick();
  t.same(server.replaced, []);
  t.same(server.detokenizerFaults, []);
  pass(server, silenceLimitMs + 100);
  t.equal(server.replaced.length, 1, 'but for what comes after');
  t.end();
});

t.test('a detokenizer that does not acknowledge is given up', (t) => {
  const server = makeServer({ acknowledge: false });
  server.core.tick();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 3 } });
  server.run(100);
  pass(server, silenceLimitMs - 100);
  t.same(server.detokenizerFaults, []);
  pass(server, 200);
  t.match(server.detokenizerFaults, [/^no sign of life for 5\d\d\d ms$/]);
  server.core.detokenizerGone(0, 0);
  pass(server, 2 * silenceLimitMs);
  server.core.detokenizerJoined();
  pass(server, 2 * silenceLimitMs);
  t.equal(server.detokenizerFaults.length, 1, 'once, and the new one owes nothing');
  t.end();
});

t.test('a detokenizer does not get more time by being sent more', (t) => {
  const server = makeServer({ acknowledge: false, stepUs: () => 1_000_000 });
  const startUs = server.nowUs;
  let givenUpMs = 0;
  for (let ms = 100; ms <= 20_000; ms += 100)
    server.at(startUs + 1000 * ms, () => {
      server.core.tick();
      if (givenUpMs === 0 && server.detokenizerFaults.length > 0) givenUpMs = ms;
      server.core.workerMessage(0, { kind: 'heartbeat', rank: 0, step: 1, opIndex: ms });
    });
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 15 } });
  server.run(1000);
  t.equal(server.outcome(1)!.tokenIds.length, 15);
  t.equal(givenUpMs, 1000 + silenceLimitMs + 100, 'from the first result on');
  t.end();
});

t.test('a detokenizer that has acknowledged all may be silent', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 3 } });
  server.run(100);
  pass(server, 3 * silenceLimitMs);
  t.same(server.detokenizerFaults, []);
  t.end();
});

t.test('a silent worker is replaced, one that is idle is not', (t) => {
  const server = makeServer();
  pass(server, 10_000);
  t.same(server.replaced, []);
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  server.step();
  server.core.tick();
  t.same(server.replaced, [], 'it had nothing to say before');
  pass(server, silenceLimitMs);
  t.same(server.replaced, []);
  pass(server, 100);
  t.match(server.replaced, [{ rank: 0, generation: 0, reason: /no sign of life/ }]);
  t.end();
});

t.test('a worker that beats but does not move is hung after stepTimeoutMs', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  server.step();
  const beat = (opIndex: number) => {
    server.nowUs += 1_000_000;
    server.core.workerMessage(0, { kind: 'heartbeat', rank: 0, step: 1, opIndex });
    server.core.tick();
  };
  for (let i = 0; i < 100; i++) beat(i);
  t.same(server.replaced, [], 'slow is not hung');
  for (let i = 0; i < 62; i++) beat(99);
  t.match(server.replaced[0], { reason: /hung in op 99 of step 1/ });
  t.equal(server.replaced.length, 1);
  t.end();
});

t.test('a worker that reports a failure, or answers nonsense, is replaced', (t) => {
  const failed = makeServer();
  failed.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  failed.step();
  const message = 'an op failed';
  failed.core.workerMessage(0, {
    kind: 'workerFailed',
    rank: 0,
    step: 1,
    op: 'linear',
    blamedRank: null,
    message,
  });
  t.match(failed.replaced, [{ reason: /an op failed/ }]);
  const wrong = makeServer();
  wrong.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  wrong.step();
  const { columns } = wrong.model.execute();
  wrong.core.workerMessage(0, {
    ...{ kind: 'stepOutput', step: 7, generation: 0, rank: 0 },
    ...{ hash: 0, startUs: 0, endUs: 0, deviceIdleUs: 0, columns },
  } as never);
  wrong.step();
  t.match(wrong.replaced, [{ reason: /step 7 instead of 1/ }]);
  t.end();
});

t.test('a token that is not of the vocabulary ends its own request only', (t) => {
  for (const id of [-1, 101]) {
    const server = makeServer({ vocabSize: 101 });
    const execute = server.model.execute.bind(server.model);
    server.model.execute = () => {
      const result = execute();
      if (result.step === 2) result.columns.tokenId[0] = id;
      return result;
    };
    for (const requestId of [1, 2])
      server.add({ requestId, prompt: prompt(5, 3 + requestId), sampling: { maxTokens: 6 } });
    server.run(1000);
    t.match(server.outcome(1), { finishReason: 'error', error: { code: 'internal' } });
    t.equal(server.outcome(1)!.tokenIds.length, 1);
    t.match(server.outcome(2), { finishReason: 'length' });
    t.equal(server.outcome(2)!.tokenIds.length, 6);
  }
  t.end();
});
