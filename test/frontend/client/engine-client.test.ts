import t, { type Test as TapTest } from 'tap';
import { RequestError } from '../../../common/errors.ts';
import { defaultSamplingParams, defaultTextParams } from '../../../common/sampling-params.ts';
import { EngineClient } from '../../../frontend/engine-client.ts';
import type { GenerateRequest, RequestOutput } from '../../../frontend/engine-client-types.ts';
import type { AddRequest } from '../../../common/wire/messages.ts';
import { FakeServer } from './fake-server.ts';

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

async function connected(t: TapTest) {
  const server = await FakeServer.start();
  const client = await EngineClient.connect(server.options);
  t.teardown(() => {
    client.close();
    server.close();
  });
  return { server, client };
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
