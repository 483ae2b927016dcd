// Rules of the scheduler, seen from outside through EngineCore on virtual time.
import t from 'tap';
import type { StepInput } from '../../common/wire/messages.ts';
import { checkIntegrity } from '../../engine/check-integrity.ts';
import { VirtualServer, type VirtualServerOptions } from '../../scripts/virtual-server.ts';

/** A server that keeps what it sent to the worker: rows as [requestless] start and count. */
function makeServer(options: VirtualServerOptions = {}) {
  const steps: { start: number[]; count: number[]; newTokens: number[] }[] = [];
  const stepUs = ({ columns }: StepInput) => {
    steps.push({
      start: [...columns.start],
      count: [...columns.count],
      newTokens: [...columns.newNumTokens],
    });
    return 3000;
  };
  const server = new VirtualServer({ eosTokenIds: [], ...options, stepUs });
  server.onRun = () => checkIntegrity(server.core.scheduler);
  return { server, steps };
}

const prompt = (length: number, first = 3) => Array.from({ length }, (_, i) => first + (i % 90));

t.test('schedule() spends one budget: decodes first, the rest on a chunk of a prompt', (t) => {
  const { server, steps } = makeServer({
    scheduler: { maxNumSeqs: 4, maxNumBatchedTokens: 10, asyncDepth: 1 },
  });
  server.add({ requestId: 0, prompt: prompt(4), sampling: { maxTokens: 6 } });
  server.add({ requestId: 1, prompt: prompt(25, 9), sampling: { maxTokens: 2 } });
  server.run(1000);
  t.same(steps[0]!.count, [4, 6]);
  t.same(steps[1]!.count, [1, 9]);
  t.same(steps[2]!.count, [1, 9]);
  t.same(steps[3]!.count, [1, 1], 'the last chunk samples');
  t.equal(server.outcome(1)!.tokenIds.length, 2);
  t.end();
});

t.test('schedule() runs ahead by asyncDepth steps and not past max_tokens', (t) => {
  for (const asyncDepth of [1, 2, 8]) {
    const { server, steps } = makeServer({ scheduler: { asyncDepth } });
    server.add({ requestId: 0, prompt: prompt(5), sampling: { maxTokens: 4 } });
    server.step();
    t.equal(steps.length, Math.min(asyncDepth, 4));
    server.run(1000);
    t.equal(steps.length, 4, 'no step is wasted on a known end');
  }
  t.end();
});

t.test('a stop that was not foreseen wastes at most the steps in flight', (t) => {
  const probe = makeServer({ scheduler: { asyncDepth: 1 } });
  const sampling = { maxTokens: 40, seed: 3 };
  probe.server.add({ requestId: 0, prompt: prompt(5), sampling });
  probe.server.run(1000);
  const ids = probe.server.outcome(0)!.tokenIds;
  const { server, steps } = makeServer({ scheduler: { asyncDepth: 3 } });
  const id = ids[10]!;
  const length = ids.indexOf(id) + 1;
  server.add({ requestId: 0, prompt: prompt(5), sampling: { ...sampling, stopTokenIds: [id] } });
  server.run(1000);
  const outcome = server.outcome(0)!;
  t.match(outcome, { finishReason: 'stop', stopTokenId: id });
  t.same(outcome.tokenIds, ids.slice(0, length));
  t.ok(steps.length <= length + 2);
  t.end();
});

t.test('min_tokens holds back stop ids, EOS and ignore_eos decide at the right token', (t) => {
  const sampling = { maxTokens: 30, seed: 3 };
  const probe = makeServer();
  probe.server.add({ requestId: 0, prompt: prompt(5), sampling });
  probe.server.run(1000);
  const ids = probe.server.outcome(0)!.tokenIds;
  const eos = ids[4]!;
  const { server } = makeServer({ eosTokenIds: [eos] });
  const minTokens = ids.indexOf(eos) + 2;
  server.add({ requestId: 0, prompt: prompt(5), sampling });
  server.add({ requestId: 1, prompt: prompt(5), sampling: { ...sampling, minTokens } });
  server.add({ requestId: 2, prompt: prompt(5), sampling: { ...sampling, ignoreEos: true } });
  server.run(1000);
  t.match(server.outcome(0), { finishReason: 'stop', stopTokenId: eos });
  t.equal(server.outcome(0)!.tokenIds.length, ids.indexOf(eos) + 1);
  t.ok(server.outcome(1)!.tokenIds.length >= minTokens);
  t.match(server.outcome(2), { finishReason: 'length', stopTokenId: -1, tokenIds: ids });
  t.end();
});

t.test('a prompt that was computed is hit, up to its last block', (t) => {
  const { server, steps } = makeServer({ scheduler: { blockSize: 4 } });
  server.add({ requestId: 0, prompt: prompt(16), sampling: { maxTokens: 1 } });
  server.run(1000);
  server.add({ requestId: 1, prompt: prompt(16), sampling: { maxTokens: 1 } });
  server.add({ requestId: 2, prompt: prompt(16), cacheSalt: 'a', sampling: { maxTokens: 1 } });
  server.run(1000);
  t.equal(server.outcome(0)!.numCachedTokens, 0);
  t.equal(server.outcome(1)!.numCachedTokens, 12, 'the last token is always computed');
  t.equal(server.outcome(2)!.numCachedTokens, 0, 'another salt shares nothing');
  t.same(steps[1]!.count, [4, 16]);
  server.add({ requestId: 3, prompt: prompt(17), sampling: { maxTokens: 1 } });
  server.run(1000);
  t.equal(server.outcome(3)!.numCachedTokens, 16, 'a last token of its own block leaves the rest');
  t.end();
});

t.test('generated blocks are hit by the next turn, but not what the device never computed', (t) => {
  const { server } = makeServer({ scheduler: { blockSize: 4, asyncDepth: 4 } });
  server.add({ requestId: 0, prompt: prompt(6), sampling: { maxTokens: 10, seed: 1 } });
  server.run(1000);
  const said = [...prompt(6), ...server.outcome(0)!.tokenIds];
  t.equal(said.length % 4, 0, 'the last token ends a block');
  server.add({ requestId: 1, prompt: [...said, 5], sampling: { maxTokens: 3, seed: 1 } });
  server.run(1000);
  t.equal(server.outcome(1)!.numCachedTokens, said.length - 4);
  t.end();
});

t.test('the block of a stop token is not hit: the device saw the stop and left it out', (t) => {
  const scheduler = { blockSize: 4, asyncDepth: 4 };
  const sampling = { maxTokens: 10, seed: 1 };
  const probe = makeServer({ scheduler });
  probe.server.add({ requestId: 0, prompt: prompt(6), sampling });
  probe.server.run(1000);
  const ids = probe.server.outcome(0)!.tokenIds;
  const { server } = makeServer({ scheduler });
  const stop = { maxTokens: 50, seed: 1, minTokens: 10, stopTokenIds: [ids[9]!] };
  server.add({ requestId: 0, prompt: prompt(6), sampling: stop });
  server.run(1000);
  t.same(server.outcome(0)!.tokenIds, ids);
  for (const it of [probe.server, server])
    it.add({ requestId: 1, prompt: [...prompt(6), ...ids, 5], sampling });
  server.run(1000);
  probe.server.run(1000);
  t.equal(server.outcome(1)!.numCachedTokens, 12);
  t.same(server.outcome(1)!.tokenIds, probe.server.outcome(1)!.tokenIds);
  t.end();
});

t.test('logprobs stay with their request when another one in the batch has ended', (t) => {
  const logprobsOf1 = (abort: boolean) => {
    const { server } = makeServer();
    for (const requestId of [0, 1])
      server.add({
        requestId,
        prompt: prompt(5, 3 + requestId),
        sampling: { maxTokens: 12, seed: 1, logprobs: 2, promptLogprobs: 1 },
      });
    // Steps are in flight, none has come back.
    server.step();
    if (abort) server.core.abort(1, Uint32Array.of(0));
    server.run(1000);
    const { logprobs, promptLogprobs } = server.outcome(1)!;
    return { logprobs, promptLogprobs: [...promptLogprobs] };
  };
  t.same(logprobsOf1(true), logprobsOf1(false));
  t.equal(logprobsOf1(true).logprobs.length, 12);
  t.end();
});

t.test('prompt_logprobs come once, for every position but the first, and skip the cache', (t) => {
  const { server } = makeServer({ scheduler: { maxNumSeqs: 4, maxNumBatchedTokens: 7 } });
  const sampling = { maxTokens: 2, promptLogprobs: 2, logprobs: 1 };
  server.add({ requestId: 0, prompt: prompt(40), sampling, n: 2 });
  server.run(1000);
  const [first, second] = [server.outcome(0)!, server.outcome(1)!];
  t.same(
    [...first.promptLogprobs.keys()],
    Array.from({ length: 39 }, (_, i) => i + 1),
  );
  for (const entries of first.promptLogprobs.values()) t.equal(entries.length, 3);
  for (const entries of first.logprobs) t.equal(entries.length, 4, 'two logprobs, two ids');
  t.equal(second.promptLogprobs.size, 0, 'only the first child computes them');
  t.ok(second.numCachedTokens > 0, 'siblings look up as usual');
  server.add({ requestId: 5, prompt: prompt(40), sampling });
  server.run(1000);
  t.equal(server.outcome(5)!.numCachedTokens, 0);
  t.equal(server.outcome(5)!.promptLogprobs.size, 39);
  t.end();
});

t.test('siblings wait for the first child and hit its blocks; their seeds follow its', (t) => {
  const { server, steps } = makeServer();
  server.add({ requestId: 0, prompt: prompt(64), n: 4, sampling: { maxTokens: 3, seed: 9 } });
  server.add({ requestId: 9, prompt: prompt(64), sampling: { maxTokens: 3, seed: 11 } });
  server.run(1000);
  t.same(steps[0]!.count, [64, 64], 'the first child, and who comes after the group');
  for (const id of [1, 2, 3]) t.equal(server.outcome(id)!.numCachedTokens, 48);
  t.same(server.outcome(2)!.tokenIds, server.outcome(9)!.tokenIds);
  t.end();
});

t.test('requests that fill the KV cache to its last block are not preempted', (t) => {
  const { server } = makeServer({ numBlocks: 11, scheduler: { blockSize: 4, maxModelLen: 20 } });
  for (const requestId of [0, 1])
    server.add({ requestId, prompt: prompt(8, 3 + requestId), sampling: { maxTokens: 12 } });
  server.run(1000);
  for (const requestId of [0, 1]) t.match(server.outcome(requestId), { finishReason: 'length' });
  t.equal(server.core.scheduler.stats.numPreemptions, 0);
  t.end();
});

t.test(
  'on exhaustion the newest is preempted, and all end with the tokens they would have',
  (t) => {
    const add = (server: VirtualServer) => {
      for (let i = 0; i < 6; i++)
        server.add({ requestId: i, prompt: prompt(30, i), sampling: { maxTokens: 60, seed: i } });
      server.run(50_000);
    };
    const plain = makeServer();
    add(plain.server);
    for (const asyncDepth of [1, 2, 5]) {
      const scheduler = { blockSize: 4, maxModelLen: 92, asyncDepth };
      const { server } = makeServer({ numBlocks: 50, scheduler });
      add(server);
      t.ok(server.core.scheduler.stats.numPreemptions > 0);
      for (let i = 0; i < 6; i++)
        t.same(server.outcome(i)!.tokenIds, plain.server.outcome(i)!.tokenIds);
      t.ok(server.outcome(0)!.endUs <= server.outcome(5)!.endUs);
    }
    t.end();
  },
);

t.test('under priority the lowest number runs first and is never preempted for others', (t) => {
  const { server } = makeServer({
    scheduler: { maxNumSeqs: 1, maxNumBatchedTokens: 64, schedulingPolicy: 'priority' },
  });
  const order: number[] = [];
  server.onOutput = (_, requestId, { finishReason }) => {
    if (finishReason !== 'none') order.push(requestId);
  };
  for (const [i, priority] of [3, 1, 2, -5].entries())
    server.add({ requestId: i, prompt: prompt(4), priority, sampling: { maxTokens: 2 } });
  server.run(1000);
  t.same(order, [3, 1, 2, 0]);
  t.end();
});

t.test('a row of NaN ends its own request only, and its blocks leave the cache', (t) => {
  let nan = 0;
  const { server } = makeServer({
    scheduler: { blockSize: 4, asyncDepth: 1 },
    isNan: () => ++nan === 1,
  });
  server.add({ requestId: 0, prompt: prompt(16), sampling: { maxTokens: 5 } });
  server.add({ requestId: 1, prompt: prompt(16, 20), sampling: { maxTokens: 5 } });
  server.run(1000);
  t.match(server.outcome(0), { finishReason: 'error', error: { code: 'invalid_logits' } });
  t.match(server.outcome(1), { finishReason: 'length', error: null });
  nan = 0;
  const sampling = { maxTokens: 5, allowedTokenIds: [1], badWords: [[1, 1]] };
  server.add({ requestId: 3, prompt: prompt(16, 40), sampling });
  server.run(1000);
  const theirs = { code: 'bad_request', param: 'allowed_token_ids' };
  t.match(server.outcome(3), { finishReason: 'error', error: theirs }, 'perhaps not of the model');
  nan = 0;
  const single = { maxTokens: 5, allowedTokenIds: [1, 2], badWords: [[1]] };
  server.add({ requestId: 4, prompt: prompt(16, 60), sampling: single });
  server.run(1000);
  t.match(
    server.outcome(4),
    { error: { code: 'invalid_logits' } },
    'one bad token leaves the other',
  );
  server.add({ requestId: 2, prompt: prompt(16), sampling: { maxTokens: 1 } });
  server.run(1000);
  t.equal(server.outcome(2)!.numCachedTokens, 0);
  t.end();
});
