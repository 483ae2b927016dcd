import t from 'tap';
import { RequestError } from '../../../common/errors.ts';
import { defaultSamplingParams, defaultTextParams } from '../../../common/sampling-params.ts';
import type { GenerateRequest, RequestOutput } from '../../../frontend/engine-client-types.ts';
import type { AddRequest } from '../../../common/wire/messages.ts';
import { idleStatus } from '../../fixtures/idle-status.ts';
import { connected, FakeServer } from './fake-server.ts';

function request(change: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    promptTokenIds: Int32Array.of(1, 2, 3),
    sampling: defaultSamplingParams,
    text: defaultTextParams,
    n: 1,
    priority: 0,
    cacheSalt: null,
    ...change,
  };
}

/** Collects outputs; `until` waits for their number. */
function collector() {
  const outputs: RequestOutput[] = [];
  let wake: () => void = () => undefined;
  return {
    outputs,
    push: (output: RequestOutput) => {
      outputs.push(output);
      wake();
    },
    until: async (count: number) => {
      while (outputs.length < count) await new Promise<void>((resolve) => (wake = resolve));
    },
  };
}

async function submitted(server: FakeServer) {
  const { peer, message } = await server.engineInbox.next('addRequest');
  return { peer, message: message as unknown as AddRequest };
}

t.test('EngineClient submits, streams and ends once', async (t) => {
  const { server, client } = await connected(t);
  t.equal(client.info.maxModelLen, 64);
  t.equal(client.ready, true);
  const seen = collector();
  const promise = client.submit(request(), seen.push);
  const { peer, message } = await submitted(server);
  t.same([...message.columns.promptTokenIds], [1, 2, 3]);
  t.equal(message.text.returnTokenIds, true, 'ids are always kept');
  server.accept(peer, message.requestId, 1);
  const handle = await promise;
  const { requestId } = message;
  server.text(1, [{ requestId, text: 'héé', tokenIds: [7], numOutputTokens: 1 }]);
  server.text(1, [
    {
      requestId,
      text: 'y',
      tokenIds: [8, 2],
      finishReason: 'stop',
      stopTokenId: 2,
      numPromptTokens: 3,
      numCachedTokens: 1,
      numOutputTokens: 3,
    },
  ]);
  await seen.until(2);
  t.equal(seen.outputs[0]!.text, 'héé');
  t.equal(seen.outputs[0]!.tokenIds.length, 0, 'ids were not asked for');
  t.same([...handle.tokenIds(0)], [7, 8, 2], 'and are kept all the same');
  t.match(seen.outputs[1]!, {
    finishReason: 'stop',
    stopReason: null,
    numPromptTokens: 3,
    numCachedTokens: 1,
    numOutputTokens: 3,
  });
  t.equal(client.numOpen, 0);
});

t.test('outputs that overtake Accepted come after it, in order', async (t) => {
  const { server, client } = await connected(t);
  const seen = collector();
  let accepted = false;
  const promise = client
    .submit(request(), (output) => {
      t.ok(accepted, 'the caller holds its handle');
      seen.push(output);
    })
    .then((handle) => {
      accepted = true;
      return handle;
    });
  const { peer, message } = await submitted(server);
  const { requestId } = message;
  server.text(1, [{ requestId, text: 'a' }]);
  server.text(1, [{ requestId, text: 'b', finishReason: 'length' }]);
  // A round trip over the detokenizer's link: both outputs have arrived.
  const call = client.detokenize(Int32Array.of(1));
  const received = await server.detokenizerInbox.next('detokenize');
  server.detokenizer.send(received.peer, {
    kind: 'textReply',
    callId: received.message['callId'],
    text: 'x',
    error: null,
    columns: { tokenIds: new Int32Array(0) },
  } as never);
  t.equal(await call, 'x');
  t.equal(seen.outputs.length, 0);
  server.accept(peer, requestId, 1);
  await promise;
  await seen.until(2);
  t.same(
    seen.outputs.map(({ text }) => text),
    ['a', 'b'],
  );
});

t.test('a rejected request rejects with its code, and nothing is left open', async (t) => {
  const { server, client } = await connected(t);
  const promise = client.submit(request({ n: 3 }), () => t.fail('no output'));
  const { peer, message } = await submitted(server);
  server.reject(peer, message.requestId, 3, {
    code: 'queue_full',
    message: 'full',
    param: null,
    retryAfterMs: 1500,
  });
  const error = await promise.catch((e: unknown) => e as RequestError);
  t.match(error, { name: 'RequestError', code: 'queue_full', retryAfterMs: 1500 });
  t.equal(client.numOpen, 0);
});

t.test('n choices are n ids of one AddRequest, joined by index, aborted together', async (t) => {
  const { server, client } = await connected(t);
  const seen = collector();
  const promise = client.submit(request({ n: 3 }), seen.push);
  const { peer, message } = await submitted(server);
  const { requestId } = message;
  t.equal(message.n, 3);
  t.equal(server.engineInbox.count('addRequest'), 0, 'one message');
  server.accept(peer, requestId, 3);
  const handle = await promise;
  server.text(1, [
    { requestId: requestId + 2, text: 'c' },
    { requestId, text: 'a', finishReason: 'length', numPromptTokens: 3 },
  ]);
  await seen.until(2);
  t.same(
    seen.outputs.map(({ index, text }) => [index, text]),
    [
      [2, 'c'],
      [0, 'a'],
    ],
  );
  handle.abort();
  const abort = await server.engineInbox.next('abort');
  t.same([...(abort.message.columns!['requestId'] as Uint32Array)], [requestId + 1, requestId + 2]);
  server.text(1, [
    { requestId: requestId + 1, finishReason: 'abort' },
    { requestId: requestId + 2, finishReason: 'abort' },
  ]);
  await seen.until(4);
  t.equal(client.numOpen, 0);
  handle.abort();
  const next = client.submit(request(), () => undefined);
  const second = await submitted(server);
  t.equal(second.message.requestId, requestId + 3, 'ids are not used twice');
  t.equal(server.engineInbox.count('abort'), 0, 'nothing is left to abort');
  server.accept(second.peer, second.message.requestId, 1);
  await next;
});

t.test(
  'logprobs, prompt logprobs, stop reasons and errors are cut out of their rows',
  async (t) => {
    const { server, client } = await connected(t);
    const seen = collector();
    const entry = (id: number, bytes: string) => ({ id, logprob: -id / 2, rank: id, bytes });
    const sampling = {
      ...defaultSamplingParams,
      logprobs: 1,
      promptLogprobs: 0,
      stopTokenIds: [9],
    };
    const text = { ...defaultTextParams, stop: ['x', 'END'] };
    const promise = client.submit(request({ n: 3, sampling, text }), seen.push);
    const { peer, message } = await submitted(server);
    const { requestId } = message;
    server.accept(peer, requestId, 3);
    await promise;
    server.text(
      1,
      [
        {
          requestId,
          text: 'ab',
          tokenIds: [5, 6],
          logprobs: [[entry(5, 'a'), entry(8, 'é')], [entry(6, 'b')]],
          finishReason: 'stop',
          stopStringIndex: 1,
        },
        {
          requestId: requestId + 1,
          tokenIds: [9],
          logprobs: [[entry(9, '')]],
          promptLogprobs: { 1: [entry(2, 'q')], 2: [entry(3, 'r')] },
          finishReason: 'stop',
          stopTokenId: 9,
        },
        { requestId: requestId + 2, finishReason: 'error' },
      ],
      { errors: [{ row: 2, error: { code: 'invalid_logits', message: 'NaN' } }] },
    );
    await seen.until(3);
    const [first, second, third] = seen.outputs;
    t.equal(first!.stopReason, 'END');
    t.same([...first!.tokenIds], [5, 6]);
    t.same([...first!.logprobs!.at(0)!.ids], [5, 8]);
    t.same([...first!.logprobs!.at(0)!.logprobs], [-2.5, -4]);
    t.equal(Buffer.from(first!.logprobs!.at(0)!.bytes[1]!).toString(), 'é');
    t.same([...first!.logprobs!.at(1)!.ranks], [6]);
    t.equal(first!.promptLogprobs, null);
    t.equal(second!.stopReason, 9);
    t.same([...second!.logprobs!.at(0)!.ids], [9]);
    t.equal(second!.promptLogprobs!.position, 1);
    t.equal(second!.promptLogprobs!.length, 2);
    t.equal(Buffer.from(second!.promptLogprobs!.at(1)!.bytes[0]!).toString(), 'r');
    t.match(third!, { finishReason: 'error', error: { code: 'invalid_logits' }, stopReason: null });
  },
);

t.test('generate streams, grants credit and aborts when its reader leaves', async (t) => {
  const { server, client } = await connected(t);
  const text = { ...defaultTextParams, creditBytes: 16 };
  const stream = client.generate(request({ text }));
  const first = stream.next();
  const { peer, message } = await submitted(server);
  const { requestId } = message;
  server.accept(peer, requestId, 1);
  server.text(1, [{ requestId, text: 'abcdefgh', tokenIds: [1] }]);
  t.match((await first).value!, { text: 'abcdefgh', creditBytes: 12 });
  const second = stream.next();
  const credit = (await server.detokenizerInbox.next('credit')).message;
  t.equal(credit['bytes'], 12, 'text and an id');
  t.same([...(credit.columns!['requestId'] as Uint32Array)], [requestId]);
  server.text(1, [{ requestId, text: 'i' }]);
  t.equal((await second).value!.text, 'i');
  await stream.return();
  const abort = await server.engineInbox.next('abort');
  t.same([...(abort.message.columns!['requestId'] as Uint32Array)], [requestId]);
});

t.test('a signal ends generate with its terminal output', async (t) => {
  const { server, client } = await connected(t);
  const ending = new AbortController();
  const outputs: RequestOutput[] = [];
  const reading = (async () => {
    for await (const output of client.generate(request(), { signal: ending.signal }))
      outputs.push(output);
  })();
  const { peer, message } = await submitted(server);
  const { requestId } = message;
  server.accept(peer, requestId, 1);
  server.text(1, [{ requestId, text: 'a' }]);
  ending.abort();
  await server.engineInbox.next('abort');
  server.text(1, [{ requestId, finishReason: 'abort' }]);
  await reading;
  t.equal(outputs.at(-1)!.finishReason, 'abort');
});

t.test('calls are answered by number, errors keep their code', async (t) => {
  const { server, client } = await connected(t);
  const stats = client.utility('stats', { a: 1 });
  const memory = client.utility('memory');
  const first = (await server.engineInbox.next('utility')).message;
  const { peer, message: second } = await server.engineInbox.next('utility');
  t.match(first, { method: 'stats', args: { a: 1 } });
  const reply = { kind: 'utilityReply', error: null, result: null };
  const error = { code: 'unsupported', message: 'no', param: 'method' };
  server.engine.send(peer, { ...reply, callId: second['callId'], error } as never);
  server.engine.send(peer, { ...reply, callId: first['callId'], result: { steps: 4 } } as never);
  // Its rejection may come first, and somebody must be listening then.
  const refused = t.rejects(memory, {
    name: 'RequestError',
    code: 'unsupported',
    param: 'method',
  });
  t.same(await stats, { steps: 4 });
  await refused;

  const tokens = client.tokenize('Hi', false);
  const call = await server.detokenizerInbox.next('tokenize');
  t.match(call.message, { text: 'Hi', addSpecialTokens: false });
  t.notOk('allowSpecialTokens' in call.message, 'absent, as before it was in the protocol');
  server.detokenizer.send(call.peer, {
    kind: 'textReply',
    callId: call.message['callId'],
    text: null,
    error: null,
    columns: { tokenIds: Int32Array.of(4, 5) },
  } as never);
  t.same([...(await tokens)], [4, 5]);
  client.tokenize('<s>', false, true).catch(() => undefined);
  const allowed = await server.detokenizerInbox.next('tokenize');
  t.match(allowed.message, { text: '<s>', addSpecialTokens: false, allowSpecialTokens: true });
});

t.test('a call that no message can hold fails alone', async (t) => {
  const { server, client } = await connected(t);
  let deep: Record<string, unknown> = {};
  for (let level = 0; level < 8; level++) deep = { deep };
  const tooDeep = () => client.applyChatTemplate([], { templateArgs: { deep } });
  const tooWide = () => client.applyChatTemplate([], { templateArgs: { wide: 2n ** 64n } });
  const refusal = (message: RegExp) => ({ code: 'bad_request', message, param: 'templateArgs' });
  const nesting = refusal(/^field templateArgs: nesting deeper than 8$/);
  const bits = refusal(/^field templateArgs: more than 64 bits$/);

  // More than may be open: what failed at once has left its place.
  for (let i = 0; i < 20; i++) await t.rejects(tooDeep(), nesting);
  await t.rejects(client.utility('stats', { deep }), { code: 'bad_request', param: 'args' });
  const texts = Array.from({ length: 16 }, (_, i) => client.tokenize(`open ${i}`));
  const held = [t.rejects(tooDeep(), nesting), t.rejects(tooWide(), bits)];
  texts.push(client.tokenize('last'));
  for (let i = 0; i < texts.length; i++) {
    const { peer, message } = await server.detokenizerInbox.next('tokenize');
    const reply = { kind: 'textReply', callId: message['callId'], text: null, error: null };
    const columns = { tokenIds: Int32Array.of(i) };
    server.detokenizer.send(peer, { ...reply, columns });
  }
  t.same(
    (await Promise.all(texts)).map(([id]) => id),
    texts.map((_, i) => i),
  );
  await Promise.all(held);
  t.ok(client.ready, 'the link is kept');
});

t.test('status is kept and told', async (t) => {
  const { server, client } = await connected(t);
  t.equal(client.status, null);
  const told = new Promise((resolve) => client.on('status', resolve));
  const status = { ...idleStatus, step: 9, numRunning: 1, numWaiting: 2, stalledMs: 6000 };
  server.engine.send(server.enginePeers[0]!, status);
  await told;
  t.equal(client.status!.step, 9);
  t.equal(client.stalledMs, 6000);
  t.equal(client.engineSilentMs, 0, 'its work is for others');
  const idle = new Promise((resolve) => client.on('status', resolve));
  server.engine.send(server.enginePeers[0]!, { ...status, numRunning: 0, numWaiting: 0 } as never);
  await idle;
  t.equal(client.engineSilentMs, 0);
  void client.submit(request(), () => undefined).catch(() => undefined);
  const { message } = await submitted(server);
  await new Promise((resolve) => setTimeout(resolve, 2));
  t.ok(client.engineSilentMs > 0, 'it owes an answer');
  const told2 = new Promise((resolve) => client.on('status', resolve));
  server.engine.send(server.enginePeers[0]!, {
    kind: 'rejected',
    requestId: message.requestId,
    n: 1,
    error: { code: 'queue_full', message: 'full', param: null },
  } as never);
  server.engine.send(server.enginePeers[0]!, { ...status, numRunning: 0, numWaiting: 0 } as never);
  await told2;
  t.equal(client.engineSilentMs, 0, 'it said no');
});
