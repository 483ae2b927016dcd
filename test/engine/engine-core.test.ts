// EngineCore's dealings with frontends and their requests, on virtual time.
import t from 'tap';
import type { EngineToFrontend, Rejected } from '../../common/wire/messages.ts';
import { maxUnacknowledgedSteps } from '../../engine/acknowledgements.ts';
import type { VirtualServer } from '../../scripts/virtual-server.ts';
import { makeServer, pass, prompt } from './virtual.ts';

const last = (server: VirtualServer) => server.toFrontend.at(-1)!.message;
const rejectedWith = (message: EngineToFrontend) => (message as Rejected).error;

t.test('an accepted request ends once, and its resources return', (t) => {
  const server = makeServer();
  server.add({ requestId: 7, n: 3, prompt: prompt(20), sampling: { maxTokens: 5 } });
  t.match(last(server), { kind: 'accepted', requestId: 7, n: 3 });
  server.run(1000);
  for (const id of [7, 8, 9]) t.match(server.outcome(id), { finishReason: 'length' });
  t.equal(server.core.requests.size, 0);
  t.equal(server.core.scheduler.kv.pool.numUsed, 0);
  t.end();
});

t.test('an aborted request is in no later step, ends once, and gives its blocks back', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(20), sampling: { maxTokens: 500 } });
  server.add({ requestId: 2, prompt: prompt(20), sampling: { maxTokens: 500 } });
  for (let i = 0; i < 20; i++) server.step();
  server.core.abort(1, Uint32Array.of(1, 1, 99));
  const { steps, running } = server.core.scheduler;
  t.equal(running.length, 1, 'gone before anything else is scheduled');
  t.ok(steps.length > 0);
  server.run(5000);
  t.match(server.outcome(1), { finishReason: 'abort' });
  t.match(server.outcome(2), { finishReason: 'length' });
  t.equal(server.outcome(2)!.tokenIds.length, 500);
  t.end();
});

t.test('frontends reach only their own requests', (t) => {
  const server = makeServer();
  server.core.frontendJoined(2);
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 9 } });
  server.add({ frontendId: 2, requestId: 1, prompt: prompt(5), sampling: { maxTokens: 9 } });
  server.core.abort(2, Uint32Array.of(1));
  server.run(1000);
  t.match(server.outcome(1, 1), { finishReason: 'length' });
  t.match(server.outcome(1, 2), { finishReason: 'abort' });
  t.end();
});

t.test('requests of a frontend that leaves end without a word', (t) => {
  const server = makeServer();
  server.core.frontendJoined(2);
  server.add({ frontendId: 2, requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 9 } });
  for (let i = 0; i < 6; i++) server.step();
  server.core.frontendLeft(2);
  server.run(1000);
  t.match(server.outcome(1, 2), { finishReason: 'none' });
  t.match(server.outcome(1, 1), { finishReason: 'length' });
  t.equal(server.core.requests.size, 0);
  t.end();
});

t.test('a request id in use is refused and the first goes on', (t) => {
  const server = makeServer();
  server.add({ requestId: 5, prompt: prompt(5), sampling: { maxTokens: 9 } });
  server.add({ requestId: 4, n: 2, prompt: prompt(5), sampling: { maxTokens: 9 } });
  t.match(last(server), { kind: 'rejected', requestId: 4, n: 2, error: { param: 'request_id' } });
  server.run(1000);
  t.match(server.outcome(5), { finishReason: 'length' });
  t.notOk(server.outcome(4), 'none of the group exists');
  t.end();
});

t.test('a stop from the detokenizer ends a request without a second end', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  for (let i = 0; i < 9; i++) server.step();
  server.core.detokenizerMessage({
    kind: 'stopRequest',
    columns: {
      frontendId: Uint32Array.of(1, 1),
      requestId: Uint32Array.of(1, 2),
      numOutputTokens: Uint32Array.of(2, 1),
    },
  });
  server.run(100);
  t.match(server.outcome(1), { finishReason: 'none' });
  t.equal(server.core.requests.size, 0);
  t.end();
});

t.test('nothing is scheduled while the detokenizer is too far behind', (t) => {
  const server = makeServer({ acknowledge: false });
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 500 } });
  server.run(10_000);
  const { asyncDepth } = server.slice.scheduler;
  t.equal(server.outcome(1)!.tokenIds.length, maxUnacknowledgedSteps + asyncDepth);
  server.acknowledge = true;
  server.core.detokenizerMessage({ kind: 'ack', step: server.core.scheduler.lastStepRetired });
  server.run(10_000);
  t.equal(server.outcome(1)!.tokenIds.length, 500);
  t.end();
});

t.test('steps without results count for nothing in how far behind the detokenizer is', (t) => {
  const server = makeServer({ scheduler: { maxNumBatchedTokens: 4, maxNumSeqs: 4 } });
  server.acknowledge = false;
  const numSteps = maxUnacknowledgedSteps + 20;
  server.add({ requestId: 1, prompt: prompt(4 * numSteps), sampling: { maxTokens: 30 } });
  server.run(10_000);
  t.equal(server.outcome(1)!.tokenIds.length, 30);
  t.end();
});

t.test('the device counts as idle only while there is work', (t) => {
  const server = makeServer();
  const status = () => server.core.status.status(server.nowUs / 1000);
  const pauseUs = 7_000_000;
  for (const requestId of [1, 2]) {
    server.add({ requestId, prompt: prompt(5), sampling: { maxTokens: 20 } });
    server.run(1000);
    server.nowUs += pauseUs;
  }
  t.equal(status().deviceIdleMs, 0, 'nobody asked for anything in the pause');
  t.equal(status().deviceBusyMs, server.busyUs / 1000);
  server.acknowledge = false;
  server.add({ requestId: 3, prompt: prompt(5), sampling: { maxTokens: 500 } });
  server.run(10_000);
  server.nowUs += pauseUs;
  server.acknowledge = true;
  server.core.detokenizerMessage({ kind: 'ack', step: server.core.scheduler.lastStepRetired });
  server.run(10_000);
  t.equal(server.outcome(3)!.tokenIds.length, 500);
  t.equal(status().deviceIdleMs, pauseUs / 1000, 'a request waited through the pause');
  t.end();
});

t.test('a request that comes and ends between two ticks is told in the next', (t) => {
  const server = makeServer();
  server.core.tick();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 2 } });
  server.run(100);
  const statuses = () => server.toFrontend.filter(({ message }) => message.kind === 'status');
  t.equal(statuses().length, 0);
  pass(server, 100);
  t.match(statuses(), [{ message: { numRunning: 0, numWaiting: 0, generationTokens: 2 } }]);
  pass(server, 1000);
  t.equal(statuses().length, 1, 'once');
  t.end();
});

t.test('the queue is bounded in requests and in prompt tokens, beyond what can run', (t) => {
  const server = makeServer({ scheduler: { maxNumSeqs: 2, maxQueuedRequests: 3 } });
  for (let i = 0; i < 5; i++) server.add({ requestId: i, prompt: prompt(5) });
  t.match(last(server), { kind: 'accepted', requestId: 4 });
  server.add({ requestId: 5, prompt: prompt(5) });
  t.match(rejectedWith(last(server)), { code: 'queue_full', retryAfterMs: Number });
  server.run(1000);
  server.add({ requestId: 6, n: 6, prompt: prompt(5) });
  t.match(rejectedWith(last(server)), { code: 'bad_request', param: 'n' }, 'it never fits');
  t.equal(server.core.requests.size, 0);
  server.add({ requestId: 12, prompt: prompt(5) });
  server.add({ requestId: 13, n: 5, prompt: prompt(5) });
  t.match(rejectedWith(last(server)), { code: 'queue_full' }, 'a group is refused whole');
  t.equal(server.core.requests.size, 1);

  const tokens = makeServer({ scheduler: { maxNumSeqs: 1, maxQueuedTokens: 100 } });
  tokens.add({ requestId: 0, prompt: prompt(500), sampling: { maxTokens: 1 } });
  t.match(last(tokens), { kind: 'accepted' }, 'one is always taken');
  tokens.add({ requestId: 1, prompt: prompt(5) });
  t.match(rejectedWith(last(tokens)), { code: 'queue_full' });
  const kinds = [30, 31].map((length) => {
    tokens.core.endAll({ code: 'internal', message: 'enough' });
    tokens.add({ requestId: 10, prompt: prompt(40) });
    tokens.add({ requestId: 20, n: 2, prompt: prompt(length) });
    return last(tokens).kind;
  });
  t.same(kinds, ['accepted', 'rejected'], 'a group counts as often as it has children');
  t.end();
});

t.test('what can never fit is refused', (t) => {
  const server = makeServer({ numBlocks: 11, scheduler: { maxModelLen: 1000 } });
  server.add({ requestId: 0, prompt: prompt(100), sampling: { maxTokens: 61 } });
  t.match(last(server), { kind: 'accepted' }, 'the last token needs no room');
  server.run(1000);
  t.match(server.outcome(0), { finishReason: 'length' });
  server.add({ requestId: 1, prompt: prompt(100), sampling: { maxTokens: 62 } });
  t.match(rejectedWith(last(server)), { code: 'context_length_exceeded' });
  t.end();
});

t.test('a server that shuts down takes nothing and ends what is left', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 900 } });
  for (let i = 0; i < 9; i++) server.step();
  server.core.close();
  server.add({ requestId: 2, prompt: prompt(5) });
  t.match(rejectedWith(last(server)), { code: 'shutting_down' });
  server.core.endAll({ code: 'shutting_down', message: 'bye' });
  server.run(1000);
  t.match(server.outcome(1), { finishReason: 'error', error: { code: 'shutting_down' } });
  t.ok(server.core.isAcknowledged);
  t.end();
});

t.test('status is sent while there is work and once after it', (t) => {
  const server = makeServer();
  server.core.tick();
  t.equal(server.toFrontend.length, 0);
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 100 } });
  server.step();
  server.core.tick();
  t.match(last(server), { kind: 'status', numRunning: 1, promptTokens: 0 });
  server.nowUs += 4_000_000;
  server.core.tick();
  t.match(last(server), { stalledMs: 4000 });
  server.run(1000);
  server.core.tick();
  t.match(last(server), { numRunning: 0, promptTokens: 5, generationTokens: 100, stalledMs: 0 });
  const { length } = server.toFrontend;
  server.nowUs += 4_000_000;
  server.core.tick();
  t.equal(server.toFrontend.length, length);
  t.end();
});

t.test('the timeline shows that steps are scheduled while others execute', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 10 } });
  server.run(1000);
  const events = server.core.timeline.traceEvents();
  const of = (name: string) => events.filter((event) => event.name === name);
  t.equal(of('execute').length, 10);
  t.equal(of('schedule').length, 10);
  t.equal(of('added').length, 1);
  t.equal(of('ended').length, 1);
  const [execute, scheduled] = [of('execute')[0]!, of('schedule')[1]!];
  t.ok(scheduled.ts! < execute.ts! + execute.dur!, 'step 2 is scheduled before step 1 has ended');
  t.end();
});

t.test('the worker has its next step before the detokenizer has the last results', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(5), sampling: { maxTokens: 10 } });
  server.run(1000);
  // Entries are in the order in which things were done.
  const events = server.core.timeline.traceEvents();
  const at = (name: string, step: number) =>
    events.findIndex((event) => event.name === name && event.args['step'] === step);
  for (let step = 1; step <= 8; step++) {
    t.ok(at('update', step) < at('sent', step + 2), `step ${step + 2} knows the result of ${step}`);
    t.ok(at('sent', step + 2) < at('settle', step), `step ${step + 2} leaves before it goes on`);
  }
  t.end();
});
