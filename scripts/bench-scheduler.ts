// Time of schedule() plus update(), block hashing included, for 256 running requests that decode:
//
//   node dist/scripts/bench-scheduler.js [steps]
//
// That nothing allocated grows with steps shows in the garbage collector's own words:
//
//   node --trace-gc dist/scripts/bench-scheduler.js 20000 | grep -E 'Mark-Compact|Scavenge|heap'
//
// (scavenges take what a step leaves behind, the size after them stays where it is; the last lines
// compare the heap after a full collection early and late, with --expose-gc).
import { defaultSamplingParams, defaultTextParams } from '../common/sampling-params.ts';
import type { StepOutput } from '../common/wire/messages.ts';
import { Request } from '../engine/request.ts';
import { Scheduler } from '../engine/scheduler.ts';
import { TokenOutputsBuilder } from '../engine/token-outputs.ts';
import { Updater } from '../engine/update.ts';
import { readNumbers } from './arguments.ts';
import { defaultScheduler } from './virtual-server.ts';

const numRequests = 256;
const numPromptTokens = 128;
const maxTokens = 1024;
const asyncDepth = 2;
const [numSteps = 4000] = readNumbers('bench-scheduler', import.meta.url, ['steps']);
const numWarmup = 1000;

const config = { ...defaultScheduler, maxNumSeqs: numRequests, asyncDepth, maxModelLen: 4096 };
const numBlocks = (numRequests * (numPromptTokens + maxTokens)) / config.blockSize + 1000;
const scheduler = new Scheduler({ config, numBlocks, generation: 0 });
const outputs = new TokenOutputsBuilder();
const updater = new Updater(scheduler, outputs, 50_000);

let arrival = 0;
function addRequest(): void {
  const promptTokenIds = new Int32Array(numPromptTokens).map(
    (_, i) => 3 + ((arrival * 31 + i) % 40_000),
  );
  scheduler.add(
    new Request({
      frontendId: 1,
      requestId: arrival,
      arrival: arrival++,
      promptTokenIds,
      // Ends spread out, as they would be.
      maxNumTokens: numPromptTokens + maxTokens - ((arrival * 97) % 512),
      sampling: { ...defaultSamplingParams, ignoreEos: true },
      text: defaultTextParams,
      priority: 0,
      cacheSalt: null,
      stopIds: [],
      seed: 1n,
      leader: null,
    }),
  );
}
let numEnded = 0;
updater.onEnd = () => {
  numEnded++;
  addRequest();
};
for (let i = 0; i < numRequests; i++) addRequest();

const none = new Int32Array(0);
const noneF32 = new Float32Array(0);
const tokenId = new Int32Array(numRequests);
const rowFlags = new Uint8Array(numRequests);
function makeOutput(step: number, numRows: number): StepOutput {
  for (let i = 0; i < numRows; i++) tokenId[i] = 3 + ((step * 131 + i * 7) % 40_000);
  return {
    kind: 'stepOutput',
    step,
    generation: 0,
    rank: 0,
    hash: 0,
    startUs: 0,
    endUs: 0,
    deviceIdleUs: 0,
    columns: {
      tokenId: tokenId.subarray(0, numRows),
      rowFlags: rowFlags.subarray(0, numRows),
      logprobIndex: none,
      logprob: noneF32,
      logprobRank: none,
      topCount: none,
      topIds: none,
      topLogprobs: noneF32,
      promptLogprobIndex: none,
      promptLogprobPosition: none,
      promptLogprob: noneF32,
      promptLogprobRank: none,
      promptTopCount: none,
      promptTopIds: none,
      promptTopLogprobs: noneF32,
    },
  };
}

const micros = new Float64Array(numSteps);
let heapEarly = 0;
const heapNow = () => {
  (globalThis as { gc?: () => void }).gc?.();
  return process.memoryUsage().heapUsed / 2 ** 20;
};
while (!scheduler.steps.isFull) scheduler.schedule();
for (let i = -numWarmup; i < numSteps; i++) {
  const record = scheduler.steps.oldest!;
  const output = makeOutput(record.step, record.numRows);
  const start = process.hrtime.bigint();
  updater.update(record, output);
  outputs.take(record.step, 0);
  scheduler.schedule();
  scheduler.cacheBlocks();
  if (i >= 0) micros[i] = Number(process.hrtime.bigint() - start) / 1000;
  if (i === Math.floor(numSteps / 4)) heapEarly = heapNow();
}
const heapLate = heapNow();
micros.sort();
const at = (share: number) => micros[Math.floor(share * (numSteps - 1))]!.toFixed(1);
process.stdout.write(
  `${numRequests} running requests, depth ${asyncDepth}, ${numSteps} steps, ${numEnded} ended\n` +
    `schedule + update: median ${at(0.5)} us, p90 ${at(0.9)} us, p99 ${at(0.99)} us\n` +
    `heap ${heapEarly.toFixed(1)} MiB after a quarter, ${heapLate.toFixed(1)} MiB at the end\n`,
);
