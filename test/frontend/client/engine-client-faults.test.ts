import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { curveKeyPair } from 'zeromq';
import { protocolVersion } from '../../../common/wire/messages.ts';
import { encodeHeader } from '../../../common/wire/msgpack.ts';
import { defaultSamplingParams, defaultTextParams } from '../../../common/sampling-params.ts';
import { EngineClient } from '../../../frontend/engine-client.ts';
import type { GenerateRequest, RequestOutput } from '../../../frontend/engine-client-types.ts';
import { connected, FakeServer } from './fake-server.ts';

const request: GenerateRequest = {
  promptTokenIds: Int32Array.of(1, 2, 3),
  sampling: defaultSamplingParams,
  text: defaultTextParams,
  n: 2,
  priority: 0,
  cacheSalt: null,
};

const event = (client: EngineClient, name: 'peerLost' | 'ready') =>
  new Promise<unknown>((resolve) => client.on(name, resolve));

/** Two choices, accepted; choice 0 has said 'a'. `ended` resolves when both have ended. */
async function running(server: FakeServer, client: EngineClient, frontendId = 1) {
  const outputs: RequestOutput[] = [];
  let end!: () => void;
  const ended = new Promise<void>((resolve) => (end = resolve));
  let first!: () => void;
  const begun = new Promise<void>((resolve) => (first = resolve));
  const promise = client.submit(request, (output) => {
    outputs.push(output);
    first();
    if (outputs.filter(({ finishReason }) => finishReason !== 'none').length === 2) end();
  });
  const { peer, message } = await server.engineInbox.next('addRequest');
  const requestId = message['requestId'] as number;
  server.accept(peer, requestId, 2);
  await promise;
  server.text(frontendId, [{ requestId, text: 'a', tokenIds: [1], numOutputTokens: 1 }]);
  await begun;
  return { outputs, ended, requestId, peer };
}

/** A request that goes all the way. */
async function works(t: Test, server: FakeServer, client: EngineClient, frontendId: number) {
  const { outputs, ended, requestId } = await running(server, client, frontendId);
  server.text(frontendId, [
    { requestId, finishReason: 'length' },
    { requestId: requestId + 1, finishReason: 'length' },
  ]);
  await ended;
  t.equal(outputs.at(-1)!.finishReason, 'length', 'the next request succeeds');
}

t.test('a lost detokenizer ends every open choice once; a new one serves on', async (t) => {
  const { server, client } = await connected(t);
  const { outputs, ended } = await running(server, client);
  const unanswered = client.submit(request, () => t.fail('never accepted'));
  await server.engineInbox.next('addRequest');
  const lost = event(client, 'peerLost');
  server.detokenizer.close();
  await ended;
  t.match(await lost, { role: 'detokenizer', generation: 0 });
  t.equal(outputs.length, 3);
  for (const output of outputs.slice(1))
    t.match(output, { finishReason: 'error', error: { code: 'detokenizer_lost' } });
  t.equal(outputs[1]!.numOutputTokens, 1, 'usage so far');
  t.equal(outputs[1]!.numPromptTokens, 3);
  await t.rejects(unanswered, { code: 'detokenizer_lost' });
  await t.rejects(
    client.submit(request, () => undefined),
    { code: 'detokenizer_lost' },
  );
  await t.rejects(client.tokenize('x'), { code: 'detokenizer_lost' });
  t.equal((await server.engineInbox.next('abort')).message.kind, 'abort', 'the engine is told');

  await server.startDetokenizer(1);
  const ready = event(client, 'ready');
  const { address } = server.detokenizer;
  client.reattach({ frontend: address }, 1);
  await ready;
  client.reattach({ frontend: address }, 1);
  t.equal(client.ready, true, 'a second word of the same generation changes nothing');
  await works(t, server, client, 1);
});

t.test('the engine passes on what the supervisor says of the detokenizer', async (t) => {
  const { server, client } = await connected(t);
  const { ended, outputs, peer } = await running(server, client);
  const about = { role: 'detokenizer', index: 0 };
  server.engine.send(peer, { kind: 'peerLost', ...about, generation: 7 } as never);
  const call = client.utility('stats');
  const { callId } = (await server.engineInbox.next('utility')).message;
  server.engine.send(peer, { kind: 'utilityReply', callId, result: 1, error: null } as never);
  t.equal(await call, 1);
  t.equal(outputs.length, 1, 'another generation is none of ours');
  server.engine.send(peer, { kind: 'peerLost', ...about, generation: 0 } as never);
  await ended;
  t.equal(outputs.at(-1)!.error!.code, 'detokenizer_lost');
  server.detokenizer.close();
  await server.startDetokenizer(1);
  const addresses = { frontend: server.detokenizer.address };
  const ready = event(client, 'ready');
  server.engine.send(peer, { kind: 'peerReady', ...about, generation: 1, addresses } as never);
  await ready;
  await works(t, server, client, 1);
});

t.test('a lost engine ends everything with engine_lost; its return is a new session', async (t) => {
  const { server, client } = await connected(t);
  const { outputs, ended } = await running(server, client);
  const call = client.utility('stats');
  await server.engineInbox.next('utility');
  const lost = event(client, 'peerLost');
  server.engine.close();
  await ended;
  t.match(await lost, { role: 'engine' });
  t.equal(outputs.at(-1)!.error!.code, 'engine_lost');
  await t.rejects(call, { code: 'engine_lost' });
  await t.rejects(client.utility('stats'), { code: 'engine_lost' });
  t.equal(client.lost, true);
  const ready = event(client, 'ready');
  await server.startEngine();
  await ready;
  t.equal(client.info.frontendId, 2);
  await works(t, server, client, 2);
});

t.test('messages of another generation are dropped', async (t) => {
  const { server, client } = await connected(t);
  const { outputs, ended, requestId } = await running(server, client);
  server.text(1, [{ requestId, text: 'old', finishReason: 'stop' }], { generation: 4 });
  server.text(1, [
    { requestId, text: 'new', finishReason: 'stop' },
    { requestId: requestId + 1, finishReason: 'stop' },
  ]);
  await ended;
  t.same(
    outputs.map(({ text }) => text),
    ['a', 'new', ''],
  );
});

t.test('a detokenizer that sends nonsense is a lost one', async (t) => {
  const broken: Uint8Array[][] = [
    [Uint8Array.of(0xc1)],
    [encodeHeader({ kind: 'nobody' })],
    [encodeHeader({ kind: 'textOutputs', columns: [['text', 'u8', 0, 9]] }), new Uint8Array(8)],
  ];
  for (const frames of broken) {
    const { server, client } = await connected(t);
    const { ended, outputs } = await running(server, client);
    const ready = event(client, 'ready');
    server.detokenizer.sendFrames(server.attachedPeers.get(1)!, frames);
    await ended;
    t.equal(outputs.at(-1)!.error!.code, 'detokenizer_lost');
    await ready;
    await works(t, server, client, 1);
  }
});

t.test('a choice that ends unread gives its credit back', async (t) => {
  const server = await FakeServer.start();
  const client = await EngineClient.connect({ ...server.options, creditBytes: 40 });
  t.teardown(() => {
    client.close();
    server.close();
  });
  const { requestId } = await running(server, client);
  server.text(1, [{ requestId, text: 'x'.repeat(20), finishReason: 'length' }]);
  const { message } = await server.detokenizerInbox.next('credit');
  t.equal(message['bytes'], 25);
});

t.test('rows of ended requests give their credit back', async (t) => {
  const server = await FakeServer.start();
  const client = await EngineClient.connect({ ...server.options, creditBytes: 40 });
  t.teardown(() => {
    client.close();
    server.close();
  });
  await server.detokenizerInbox.next('attach');
  const entry = { id: 1, logprob: -1, rank: 1, bytes: 'x' };
  server.text(1, [
    { requestId: 998, text: 'x' },
    {
      requestId: 999,
      text: 'x'.repeat(10),
      tokenIds: [1, 2],
      logprobs: [[entry, entry], []],
      promptLogprobs: { 1: [entry] },
    },
  ]);
  const { message } = await server.detokenizerInbox.next('credit');
  t.equal(message['bytes'], 1 + 10 + 2 * 4 + 3 * 12, 'text, ids and logprobs');
});

t.test('close ends what is open with shutting_down', async (t) => {
  const { server, client } = await connected(t);
  const { outputs, ended } = await running(server, client);
  client.close();
  await ended;
  t.equal(outputs.at(-1)!.error!.code, 'shutting_down');
  await t.rejects(
    client.submit(request, () => undefined),
    { code: 'shutting_down' },
  );
});

t.test('a client that is refused later ends its requests and says so', async (t) => {
  const { server, client } = await connected(t);
  const { outputs, ended } = await running(server, client);
  const refused = new Promise<Error>((resolve) => client.on('refused', resolve));
  server.detokenizer.refuse(server.attachedPeers.get(1)!, {
    kind: 'refused',
    message: 'the frontend reads nothing',
    protocol: protocolVersion,
    build: null,
  });
  t.match(await refused, { exitCode: 78, message: 'detokenizer: the frontend reads nothing' });
  await ended;
  t.match(
    outputs.slice(1).map(({ finishReason }) => finishReason),
    ['error', 'error'],
  );
  t.notOk(client.ready);
});

t.test('connect says who refused, who is silent, and what a bad file lacks', async (t) => {
  const server = await FakeServer.start();
  t.teardown(() => server.close());
  const { options } = server;
  await t.rejects(EngineClient.connect({ ...options, token: 'wrong' }), {
    name: 'StartError',
    message: 'engine: wrong token',
    exitCode: 78,
  });
  const silent = `ipc://${server.folder}/nobody.sock`;
  // Time for the engine, which does answer.
  await t.rejects(EngineClient.connect({ ...options, detokenizer: silent, timeoutMs: 5000 }), {
    code: 'not_ready',
    message: new RegExp(`^detokenizer at ${silent}`),
  });
  await t.rejects(EngineClient.connect({ ...options, engine: silent, timeoutMs: 100 }), {
    message: /^engine at/,
  });
  await t.rejects(EngineClient.connect({ ...options, engine: `ipc:///${'x'.repeat(120)}` }), {
    message: /over 100 bytes/,
  });
  const file = join(server.folder, 'frontend.json');
  const json = { ...options, protocol: 3, engineKey: null, detokenizerKey: null, model: 'm' };
  writeFileSync(file, JSON.stringify({ ...json, protocol: 2 }));
  await t.rejects(EngineClient.connect(server.folder), { exitCode: 78, message: /version 2/ });
  writeFileSync(file, JSON.stringify({ ...json, token: 5 }));
  await t.rejects(EngineClient.connect(file), /token is not a string/);
  writeFileSync(file, JSON.stringify(json));
  const client = await EngineClient.connect(server.folder);
  t.equal(client.info.model, 'fake');
  client.close();
});

t.test('EngineClient works over tcp with CURVE, and not with the wrong key', async (t) => {
  const server = new FakeServer();
  const engineKeys = { ...curveKeyPair(), serverKey: null };
  const detokenizerKeys = { ...curveKeyPair(), serverKey: null };
  await server.startEngine('tcp://127.0.0.1:*', engineKeys);
  await server.startDetokenizer(0, 'tcp://127.0.0.1:*', detokenizerKeys);
  const keys = {
    engineKey: engineKeys.publicKey,
    detokenizerKey: detokenizerKeys.publicKey,
  };
  const client = await EngineClient.connect({ ...server.options, ...keys });
  t.teardown(() => {
    client.close();
    server.close();
  });
  await works(t, server, client, 1);
  const wrong = { ...server.options, ...keys, engineKey: detokenizerKeys.publicKey };
  await t.rejects(EngineClient.connect({ ...wrong, timeoutMs: 500 }), { code: 'not_ready' });
  const plain = { ...server.options, timeoutMs: 500 };
  await t.rejects(EngineClient.connect(plain), { code: 'not_ready' });
});
