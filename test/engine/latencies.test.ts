// What the engine times and counts for /metrics, on virtual time.
import t from 'tap';
import type { HistogramCounts } from '../../common/wire/messages.ts';
import { Histogram } from '../../engine/histogram.ts';
import { VirtualServer, type VirtualServerOptions } from '../../scripts/virtual-server.ts';

const prompt = (length: number, first: number) =>
  Array.from({ length }, (_, i) => first + (i % 40));
const count = ({ counts }: HistogramCounts) => counts.reduce((sum, n) => sum + n, 0);

function histograms(server: VirtualServer): Record<string, HistogramCounts> {
  return server.core.status.status(server.nowUs / 1000).histograms;
}

function makeServer(options: VirtualServerOptions = {}): VirtualServer {
  return new VirtualServer({ eosTokenIds: [], ...options });
}

t.test('Histogram counts a value at the first bound that it does not exceed', (t) => {
  const histogram = new Histogram([1, 2]);
  for (const value of [0, 1, 1.5, 2, 3, 1000]) histogram.add(value);
  t.same(histogram.current, { bounds: [1, 2], counts: [2, 2, 2], sum: 1007.5 });
  t.end();
});

t.test('times of requests add up, and one that waits waits in the queue', (t) => {
  const server = makeServer({ scheduler: { maxNumSeqs: 1, asyncDepth: 1 } });
  server.add({ requestId: 1, prompt: prompt(20, 3), sampling: { maxTokens: 5 } });
  server.add({ requestId: 2, prompt: prompt(30, 50), sampling: { maxTokens: 1 } });
  server.run(1000);
  const h = histograms(server);
  const close = (name: string, value: number) =>
    t.ok(Math.abs(h[name]!.sum - value) < 1e-9, `${name} ${h[name]!.sum} ${value}`);
  for (const name of ['queueTime', 'prefillTime', 'decodeTime', 'inferenceTime'])
    t.equal(count(h[name]!), 2, name);
  t.equal(count(h['timeToFirstToken']!), 2);
  t.equal(count(h['interTokenLatency']!), 4);
  t.equal(count(h['timePerOutputToken']!), 1, 'of a single token there is none');
  close('inferenceTime', h['prefillTime']!.sum + h['decodeTime']!.sum);
  close('timeToFirstToken', h['queueTime']!.sum + h['prefillTime']!.sum);
  close('decodeTime', h['interTokenLatency']!.sum);
  close('decodeTime', 4 * h['timePerOutputToken']!.sum);
  const firstS = (server.outcome(1)!.endUs - 1_000_000) / 1e6;
  t.ok(h['queueTime']!.sum >= firstS, 'the second one waited for the first');
  t.equal(h['iterationTokens']!.sum, 20 + 4 + 30);
  t.equal(count(h['iterationTokens']!), server.numSteps);
  t.end();
});

t.test('a preempted request is timed from its first run', (t) => {
  const server = makeServer({ numBlocks: 9, scheduler: { maxNumSeqs: 4, maxModelLen: 128 } });
  for (const id of [1, 2, 3])
    server.add({ requestId: id, prompt: prompt(20, 3 * id), sampling: { maxTokens: 60 } });
  server.run(5000);
  const { numPreemptions } = server.core.status.status(0);
  t.ok(numPreemptions > 0);
  const h = histograms(server);
  for (const name of ['queueTime', 'prefillTime', 'decodeTime', 'inferenceTime'])
    t.equal(count(h[name]!), 3, name);
  t.ok(h['queueTime']!.sum <= h['inferenceTime']!.sum);
  t.end();
});

t.test('a stop string is an end, an abort or an error is none', (t) => {
  let isBroken = false;
  const server = makeServer({ isNan: () => isBroken });
  for (const id of [1, 2, 3])
    server.add({ requestId: id, prompt: prompt(20, 20 * id), sampling: { maxTokens: 500 } });
  for (let i = 0; i < 20; i++) server.step();
  server.core.abort(1, Uint32Array.of(1));
  const columns = {
    frontendId: Uint32Array.of(1),
    requestId: Uint32Array.of(2),
    numOutputTokens: Uint32Array.of(3),
  };
  server.core.detokenizerMessage({ kind: 'stopRequest', columns });
  isBroken = true;
  server.run(2000);
  t.match(server.outcome(1), { finishReason: 'abort' });
  t.match(server.outcome(3), { finishReason: 'error' });
  t.equal(count(histograms(server)['inferenceTime']!), 1);
  t.match(server.core.status.status(0), { numInvalidLogits: 1 });
  t.end();
});

const ttft =
  '0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560';
const itl = '0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80';
const latency = '0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680';

t.test('buckets are those of vLLM', (t) => {
  const h = histograms(makeServer());
  const bounds = (name: string) => h[name]!.bounds.join(' ');
  t.equal(bounds('timeToFirstToken'), ttft);
  t.equal(bounds('interTokenLatency'), itl);
  t.equal(bounds('timePerOutputToken'), itl);
  for (const name of ['queueTime', 'prefillTime', 'decodeTime', 'inferenceTime'])
    t.equal(bounds(name), latency);
  t.equal(bounds('iterationTokens'), '1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384');
  t.end();
});

t.test('prompt tokens are counted by where they come from', (t) => {
  const server = makeServer();
  server.add({ requestId: 1, prompt: prompt(40, 3), sampling: { maxTokens: 2 } });
  server.run(100);
  server.add({ requestId: 2, prompt: prompt(40, 3), sampling: { maxTokens: 2 } });
  server.run(100);
  t.match(server.core.status.status(0), { promptTokens: 80, cachedPromptTokens: 32 });
  t.end();
});
