// Runs the engine over thousands of requests on virtual time, with a simple model of what a step
// costs, and prints what users would have seen:
//
//   node dist/scripts/simulate.js [requests] [requests a second] [key=value of the scheduler...]
//
// for example: node dist/scripts/simulate.js 10000 40 maxNumSeqs=128 asyncDepth=1
import { readArguments, readNumber, refuse } from './arguments.ts';
import { defaultScheduler, VirtualServer, type Outcome } from './virtual-server.ts';
import type { SchedulerConfig } from '../common/config.ts';

const name = 'simulate';
const { positionals } = readArguments(name, import.meta.url, { allowPositionals: true });
const [requestsArg = '10000', rateArg = '40', ...settings] = positionals;
const numRequests = readNumber(name, 'requests', requestsArg);
const requestsPerSecond = readNumber(name, 'requests a second', rateArg, { whole: false });

/** Time of a step: reading the weights, then each token. Of an 8B model on one large GPU, roughly. */
const stepBaseUs = 5000;
const tokenUs = 30;

const scheduler: Record<string, unknown> = { ...defaultScheduler, maxModelLen: 4096 };
for (const setting of settings) {
  const [key = '', value = ''] = setting.split('=');
  if (!(key in scheduler)) refuse(name, `the scheduler has no ${key}`);
  const number = Number(value);
  scheduler[key] = value === 'true' || value === 'false' ? value === 'true' : number || value;
}

// A fixed sequence, so that two runs can be compared.
let state = 1;
function random(): number {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return ((state >>> 8) & 0xffffff) / 2 ** 24;
}

const server = new VirtualServer({
  scheduler: scheduler as unknown as SchedulerConfig,
  numBlocks: 16_384,
  vocabSize: 50_000,
  readHistory: false,
  stepUs: ({ numTokens }) => stepBaseUs + numTokens * tokenUs,
});
const startedMs = performance.now();
const arrivedUs: number[] = [];
const sharedPrefix = Array.from({ length: 256 }, (_, i) => 3 + i);
let atUs = server.nowUs;
for (let requestId = 0; requestId < numRequests; requestId++) {
  atUs += (-Math.log(1 - random()) * 1e6) / requestsPerSecond;
  arrivedUs.push(atUs);
  const tail = Array.from(
    { length: 20 + Math.floor(random() * 500) },
    (_, i) => 300 + requestId + i,
  );
  const prompt = random() < 0.5 ? [...sharedPrefix, ...tail] : tail;
  const maxTokens = 1 + Math.floor(random() * 300);
  server.at(atUs, () =>
    server.add({ requestId, prompt, sampling: { maxTokens, seed: requestId } }),
  );
}
server.run();

const ended: Outcome[] = [...server.outcomes.values()];
const sorted = (values: readonly number[]) => Float64Array.from(values).sort();
const line = (name: string, values: readonly number[]) => {
  const v = sorted(values);
  const at = (share: number) => v[Math.floor(share * (v.length - 1))]!.toFixed(1);
  return `${name}: median ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms\n`;
};
const firstMs = ended.map((o) => (o.firstTokenUs - arrivedUs[o.newRequest.requestId]!) / 1000);
const many = ended.filter(({ tokenIds }) => tokenIds.length > 1);
const perTokenMs = many.map((o) => (o.endUs - o.firstTokenUs) / 1000 / (o.tokenIds.length - 1));
const status = server.core.status.status(server.nowUs / 1000);
const virtualS = (server.nowUs - arrivedUs[0]!) / 1e6;
process.stdout.write(
  `${ended.length} requests, ${server.numSteps} steps, ${virtualS.toFixed(1)} s of virtual time ` +
    `in ${((performance.now() - startedMs) / 1000).toFixed(1)} s\n` +
    `${(status.generationTokens / virtualS).toFixed(0)} output tokens/s, device busy ` +
    `${(server.busyUs / 1e4 / virtualS).toFixed(1)} %, ${status.numPreemptions} preemptions, ` +
    `prefix hits ${((100 * status.prefixCacheHits) / status.prefixCacheQueries).toFixed(1)} %\n` +
    line('time to first token', firstMs) +
    line('time per output token', perTokenMs),
);
