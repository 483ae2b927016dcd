// The engine process over real sockets, with a fake worker process.
import t from 'tap';
import { defaultSamplingParams, defaultTextParams } from '../../common/sampling-params.ts';
import {
  finishReasons,
  type AddRequest,
  type EngineStatus,
  type FinishReason,
} from '../../common/wire/messages.ts';
import { makeHello } from '../../common/wire/handshake.ts';
import { EngineHarness, harnessToken, type HarnessOptions } from '../../scripts/engine-harness.ts';

const add = (requestId: number, maxTokens: number, n = 1): AddRequest => ({
  kind: 'addRequest',
  requestId,
  n,
  sampling: { ...defaultSamplingParams, maxTokens, ignoreEos: true },
  text: defaultTextParams,
  priority: 0,
  cacheSalt: null,
  columns: { promptTokenIds: Int32Array.of(5, 6, 7) },
});

/** Tokens and end of each request, as the detokenizer sees them. */
async function startServer(options: HarnessOptions = {}) {
  const harness = await EngineHarness.start({
    workerEnv: { VLLM_TS_FAKE_STEP_US: '500' },
    ...options,
  });
  const ends = new Map<string, FinishReason>();
  const numTokens = new Map<string, number>();
  harness.onOutputs = ({ columns: c }) => {
    for (let row = 0; row < c.requestId.length; row++) {
      const key = `${c.frontendId[row]!}/${c.requestId[row]!}`;
      const count = c.tokenStart[row + 1]! - c.tokenStart[row]!;
      numTokens.set(key, (numTokens.get(key) ?? 0) + count);
      const reason = finishReasons[c.finishReason[row]!]!;
      if (reason === 'none') continue;
      if (ends.has(key)) throw new Error(`${key} has ended twice`);
      ends.set(key, reason);
    }
  };
  const ended = (key: string) => harness.waiter.until(() => ends.get(key), `the end of ${key}`);
  return { harness, numTokens, ended };
}

t.test('two frontends are served, one leaves, the other goes on; then a drain', async (t) => {
  const { harness, numTokens, ended } = await startServer({ enableDebugTimeline: true });
  t.teardown(() => harness.stop());
  const [a, b] = [harness.frontend(), harness.frontend()];
  const welcomes = await Promise.all([a.welcome, b.welcome]);
  t.match(welcomes[0], { model: 'fake', blockSize: 16, maxModelLen: 2048, eosTokenIds: [2] });
  const [idA, idB] = welcomes.map(({ frontendId }) => frontendId) as [number, number];
  t.not(idA, idB);
  const joined = await harness.waiter.until(() => {
    const found = harness.detokenizerMessages.filter(({ kind }) => kind === 'frontendJoined');
    return found.length === 2 && found;
  }, 'frontendJoined');
  t.match(
    joined.find((m) => 'frontendId' in m && m.frontendId === idA),
    {
      attachKey: welcomes[0].attachKey,
    },
  );

  a.send(add(1, 40, 2));
  b.send(add(1, 2000));
  await a.find('accepted');
  t.equal(await ended(`${idA}/1`), 'length');
  t.equal(await ended(`${idA}/2`), 'length');
  t.equal(numTokens.get(`${idA}/1`), 40);

  a.send({ ...add(3, 5), n: 0 });
  t.match(await a.find('rejected'), { requestId: 3, error: { code: 'bad_request', param: 'n' } });
  a.send({ kind: 'utility', callId: 1, method: 'stats', args: {} });
  a.send({ kind: 'utility', callId: 2, method: 'nonsense', args: {} });
  a.send({ kind: 'utility', callId: 3, method: 'timeline', args: {} });
  a.send({ kind: 'utility', callId: 4, method: 'memory', args: {} });
  const reply = (callId: number) => a.find('utilityReply', (m) => m.callId === callId);
  t.match(await reply(1), { result: { kind: 'status', numRunning: 1 }, error: null });
  t.match(await reply(2), { error: { code: 'unsupported' } });
  t.match((await reply(3)).result, { traceEvents: Array });
  t.match((await reply(4)).result, { 'worker 0': { kvCache: Number } });

  b.link.close();
  await harness.waiter.until(
    () =>
      harness.detokenizerMessages.some((m) => m.kind === 'frontendLeft' && m.frontendId === idB),
    'frontendLeft',
  );
  // Who has no open requests is not told of others': it asks.
  for (let callId = 5, running = 1; running > 0; callId++) {
    a.send({ kind: 'utility', callId, method: 'stats', args: {} });
    ({ numRunning: running } = (await reply(callId)).result as EngineStatus);
  }

  a.send(add(10, 1500));
  a.send({ kind: 'abort', columns: { requestId: Uint32Array.of(10) } });
  t.equal(await ended(`${idA}/10`), 'abort');

  a.send(add(11, 2000));
  await a.find('accepted', (m) => m.requestId === 11);
  await harness.drain(0);
  t.equal(await ended(`${idA}/11`), 'error');
  a.send(add(12, 5));
  t.match(await a.find('rejected', (m) => m.requestId === 12), {
    error: { code: 'shutting_down' },
  });
  await harness.stop();
  t.equal(harness.exitCode, 0);
});

t.test('a stranger hears the status while it has open requests, ours always', async (t) => {
  const { harness, ended } = await startServer();
  t.teardown(() => harness.stop());
  const [idle, busy, ours] = [
    harness.frontend(),
    harness.frontend(),
    harness.frontend(undefined, 'frontend'),
  ];
  const { frontendId } = await busy.welcome;
  await Promise.all([idle.welcome, ours.welcome]);
  busy.send(add(1, 1900));
  await busy.find('status', (m) => m.numRunning === 1);
  t.equal(await ended(`${frontendId}/1`), 'length');
  await busy.find('status', (m) => m.numRunning === 0);
  await ours.find('status', (m) => m.numRunning === 0);
  t.notOk(idle.messages.some(({ kind }) => kind === 'status'));
});

t.test('malformed and uninvited peers are dropped, and nobody else notices', async (t) => {
  const { harness, ended } = await startServer();
  t.teardown(() => harness.stop());
  const stranger = harness.frontend('wrong token');
  t.match(await stranger.find('refused'), { message: /token/ });
  stranger.send(makeHello('client', 0, 0, harnessToken));
  const good = harness.frontend();
  const { frontendId } = await good.welcome;
  t.equal(frontendId, 1, 'who was refused is not heard any more');
  const broken = harness.frontend();
  const { frontendId: brokenId } = await broken.welcome;
  broken.send(add(1, 2000));
  await broken.find('accepted');
  broken.send({ kind: 'abort', columns: { requestId: Float32Array.of(1) } } as never);
  await harness.waiter.until(
    () =>
      harness.detokenizerMessages.some(
        (m) => m.kind === 'frontendLeft' && m.frontendId === brokenId,
      ),
    'the broken peer to be given up',
  );
  good.send(add(1, 5));
  t.equal(await ended(`${frontendId}/1`), 'length');
});

t.test('a worker that fails is replaced and the engine goes on', async (t) => {
  const { harness, ended } = await startServer({
    workerEnv: { VLLM_TS_FAKE_STEP_US: '500', VLLM_TS_FAKE_FAIL_AT: '20' },
  });
  t.teardown(() => harness.stop());
  const frontend = harness.frontend();
  const { frontendId } = await frontend.welcome;
  frontend.send(add(1, 500));
  t.equal(await ended(`${frontendId}/1`), 'error');
  await harness.waiter.until(() => harness.replacements[0], 'replacePeer');
  t.match(harness.replacements, [{ role: 'worker', index: 0, generation: 0 }]);
  frontend.send(add(2, 10));
  await frontend.find('accepted', (m) => m.requestId === 2);
  harness.replaceWorker(1);
  t.equal(await ended(`${frontendId}/2`), 'length');
});

t.test('a hung worker is found out by its opIndex', async (t) => {
  const { harness, ended } = await startServer({
    stepTimeoutMs: 1500,
    workerEnv: { VLLM_TS_FAKE_STEP_US: '500', VLLM_TS_FAKE_HANG_AT: '5' },
  });
  t.teardown(() => harness.stop());
  const frontend = harness.frontend();
  const { frontendId } = await frontend.welcome;
  frontend.send(add(1, 500));
  t.equal(await ended(`${frontendId}/1`), 'error');
  t.match(harness.replacements, [{ reason: /hung/ }]);
});

t.test('a killed worker ends its requests at once', async (t) => {
  const { harness, ended } = await startServer();
  t.teardown(() => harness.stop());
  const frontend = harness.frontend();
  const { frontendId } = await frontend.welcome;
  frontend.send(add(1, 2000));
  await harness.waiter.until(() => harness.outputs.length > 3, 'tokens');
  harness.killWorker(0);
  t.equal(await ended(`${frontendId}/1`), 'error');
});

t.test('a replaced detokenizer is told of every frontend and serves new requests', async (t) => {
  const { harness, ended } = await startServer();
  t.teardown(() => harness.stop());
  const frontend = harness.frontend();
  const { frontendId } = await frontend.welcome;
  frontend.send(add(1, 2000));
  await harness.waiter.until(() => harness.outputs.length > 3, 'tokens');
  harness.detokenizerMessages.length = 0;
  await harness.replaceDetokenizer(1);
  t.match(await frontend.find('peerLost'), { role: 'detokenizer' });
  t.match(await frontend.find('peerReady'), { role: 'detokenizer', generation: 1 });
  await harness.waiter.until(
    () => harness.detokenizerMessages.some(({ kind }) => kind === 'frontendJoined'),
    'frontendJoined',
  );
  frontend.send(add(2, 5));
  t.equal(await ended(`${frontendId}/2`), 'length');
});
