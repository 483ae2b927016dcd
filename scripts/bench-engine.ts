// The share of time in which a worker waits for the engine: 256 requests at 3 ms a step, the real
// engine process and a fake worker process over real sockets.
//
//   node dist/scripts/bench-engine.js [requests] [step in us] [output tokens]
//
// Execution spans come from the engine's own timeline, so this also shows what /debug/timeline does.
import { defaultSamplingParams, defaultTextParams } from '../common/sampling-params.ts';
import type { TraceEvent } from '../engine/timeline.ts';
import { EngineHarness } from './engine-harness.ts';

const numRequests = Number(process.argv[2] ?? 256);
const stepUs = Number(process.argv[3] ?? 3000);
const maxTokens = Number(process.argv[4] ?? 500);
const numRampSteps = 50;

const harness = await EngineHarness.start({
  scheduler: { maxNumSeqs: numRequests, maxNumBatchedTokens: Math.max(2048, numRequests) },
  workerEnv: { VLLM_TS_FAKE_STEP_US: String(stepUs) },
  enableDebugTimeline: true,
  vocabSize: 50_000,
});
let numEnded = 0;
let numTokens = 0;
harness.onOutputs = ({ columns }) => {
  numTokens += columns.tokenIds.length;
  for (const reason of columns.finishReason) if (reason !== 0) numEnded++;
};
const frontend = harness.frontend();
await frontend.welcome;
for (let requestId = 0; requestId < numRequests; requestId++)
  frontend.send({
    kind: 'addRequest',
    requestId,
    n: 1,
    sampling: { ...defaultSamplingParams, maxTokens, ignoreEos: true },
    text: defaultTextParams,
    priority: 0,
    cacheSalt: null,
    columns: { promptTokenIds: Int32Array.from({ length: 8 }, (_, i) => 3 + requestId * 8 + i) },
  });
await harness.waiter.until(() => numEnded === numRequests, 'the end', 600_000);
frontend.send({ kind: 'utility', callId: 1, method: 'timeline', args: {} });
const { result } = await frontend.find('utilityReply');
const events = (result as { traceEvents: TraceEvent[] }).traceEvents;
// Not the ramp: requests trickle in and code is compiled while it runs for the first time.
const steps = events.filter(({ name }) => name === 'execute').slice(numRampSteps);
let idleUs = 0;
let busyUs = 0;
for (const [i, { ts, dur }] of steps.entries()) {
  busyUs += dur!;
  const before = steps[i - 1];
  if (before) idleUs += Math.max(0, ts! - (before.ts! + before.dur!));
}
const share = (100 * idleUs) / (idleUs + busyUs);
const medianOf = (name: string) => {
  const times = events.filter((event) => event.name === name).map(({ dur }) => dur!);
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!.toFixed(0);
};
process.stdout.write(
  `${numRequests} requests, ${numTokens} tokens, ${steps.length} steps of ${stepUs} us after a ramp of ${numRampSteps}\n` +
    `schedule median ${medianOf('schedule')} us, update median ${medianOf('update')} us\n` +
    `the worker waited for the engine ${share.toFixed(2)} % of the time\n`,
);
await harness.stop();
