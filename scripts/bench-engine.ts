// The share of time in which a worker waits for the engine: 256 requests at 3 ms a step, the real
// engine process and a fake worker process over real sockets; and what it waited for.
//
//   node dist/scripts/bench-engine.js [runs] [requests] [step in us] [output tokens] [steps in flight]
//
// Steps come from the engine's own timeline, so this also shows what /debug/timeline does. Flags of
// node (--trace-gc) are handed on to both processes.
import { defaultSamplingParams, defaultTextParams } from '../common/sampling-params.ts';
import type { TraceEvent } from '../engine/timeline.ts';
import { Acknowledger } from '../detokenizer/acknowledger.ts';
import { readNumbers } from './arguments.ts';
import { loadBetween, readHostLoad, type HostLoad } from './bench/host-load.ts';
import { findLateSteps, median, parts, type Part, type Waits } from './bench/late-steps.ts';
import { EngineHarness } from './engine-harness.ts';

const [numRuns = 1, numRequests = 256, stepUs = 3000, maxTokens = 500, fixedDepth = 0] =
  readNumbers('bench-engine', import.meta.url, [
    'runs',
    'requests',
    'step',
    'output tokens',
    'steps in flight',
  ]);
/** Not the ramp: requests trickle in and code is compiled while it runs for the first time. */
const numRampSteps = 50;
/** By default what the server does. */
const [leastAsyncDepth, asyncDepth] = fixedDepth > 0 ? [fixedDepth, fixedDepth] : [2, 8];
const sampleMs = 100;
/** Upper ends of the histogram, in ms. */
const bucketsMs = [0.1, 0.5, 1, 2, 5, 10, Infinity];

const shares: number[] = [];
for (let run = 1; run <= numRuns; run++) {
  const { waits, loads } = await measure();
  const share = (100 * waits.waitUs) / (waits.waitUs + waits.busyUs);
  shares.push(share);
  print(
    `run ${run} of ${numRuns}: the worker waited for the engine ${share.toFixed(2)} % of the time`,
  );
  explain(waits, loads);
}
if (numRuns > 1) print(`shares: ${shares.map((share) => share.toFixed(2)).join(' ')} %`);

async function measure(): Promise<{ waits: Waits; loads: readonly HostLoad[] }> {
  const harness = await EngineHarness.start({
    scheduler: {
      maxNumSeqs: numRequests,
      maxNumBatchedTokens: Math.max(2048, numRequests),
      asyncDepth,
    },
    leastAsyncDepth,
    workerEnv: { VLLM_TS_FAKE_STEP_US: String(stepUs) },
    enableDebugTimeline: true,
    vocabSize: 50_000,
    keepOutputs: false,
  });
  // As the detokenizer does.
  const acknowledger = new Acknowledger((step) => harness.toEngine({ kind: 'ack', step }));
  harness.acknowledge = false;
  let numEnded = 0;
  harness.onOutputs = ({ step, columns }) => {
    for (const reason of columns.finishReason) if (reason !== 0) numEnded++;
    acknowledger.handled(step);
  };
  const loads: HostLoad[] = [];
  const sampler = setInterval(() => loads.push(readHostLoad(harness.pids)), sampleMs);
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
  const { maxModelLen } = await frontend.welcome;
  if (8 + maxTokens > maxModelLen) throw new Error(`at most ${maxModelLen - 8} output tokens`);
  await harness.waiter.until(() => numEnded === numRequests, 'the end', 600_000);
  clearInterval(sampler);
  loads.push(readHostLoad(harness.pids));
  frontend.send({ kind: 'utility', callId: 1, method: 'timeline', args: {} });
  const { result } = await frontend.find('utilityReply');
  const events = (result as { traceEvents: TraceEvent[] }).traceEvents;
  await harness.stop();
  const medianOf = (name: string) =>
    median(events.filter((event) => event.name === name).map(({ dur }) => dur!)).toFixed(0);
  print(`medians: schedule ${medianOf('schedule')} us, update ${medianOf('update')} us`);
  const inFlight = events
    .filter(({ name }) => name === 'sent')
    .map(({ args }) => Number(args['step']) - Number(args['afterStep']));
  print(`in flight: ${median(inFlight)} in the median, ${Math.max(...inFlight)} at most`);
  return { waits: findLateSteps(events, numRampSteps), loads };
}

function explain({ numSteps, busyUs, late, medianUs }: Waits, loads: readonly HostLoad[]): void {
  print(
    `  ${numSteps} steps of ${(busyUs / numSteps / 1000).toFixed(3)} ms, ${late.length} late; medians: ` +
      (Object.keys(parts) as Part[]).map((part) => `${part} ${ms(medianUs[part])}`).join(', '),
  );
  let least = 0;
  const histogram = bucketsMs.map((most) => {
    const count = late.filter(
      ({ waitUs }) => waitUs > least * 1000 && waitUs <= most * 1000,
    ).length;
    least = most;
    return `${most === Infinity ? 'more' : `<=${most}`}: ${count}`;
  });
  print(`  waits in ms  ${histogram.join('  ')}`);
  for (const [part, what] of Object.entries(parts)) {
    const caused = late.filter(({ cause }) => cause === part);
    const us = caused.reduce((sum, { waitUs }) => sum + waitUs, 0);
    if (caused.length > 0) print(`  ${ms(us)} in ${caused.length} steps: ${what}`);
  }
  const whole = loadBetween(loads[0]!, loads.at(-1)!);
  print(
    `  stolen by the hypervisor ${whole.stolenMs} ms; by thread: wake-ups a step, processor, queued`,
  );
  for (const [name, { numWakeUps, cpuMs, queuedMs }] of whole.threads)
    if (numWakeUps > numSteps / 50)
      print(
        `    ${name.padEnd(28)} ${(numWakeUps / (numSteps + numRampSteps)).toFixed(2).padStart(5)} ` +
          `${cpuMs.toFixed(0).padStart(6)} ms ${queuedMs.toFixed(1).padStart(7)} ms`,
      );
  explainWorst(late, loads);
}

/** The longest waits beside what the machine did in the same tenth of a second. */
function explainWorst(late: Waits['late'], loads: readonly HostLoad[]): void {
  const worst = [...late].sort((a, b) => b.waitUs - a.waitUs).slice(0, 5);
  for (const { step, atUs, waitUs, cause, partsUs } of worst) {
    const after = loads.findIndex((load) => load.atUs >= atUs);
    const during = after > 0 ? loadBetween(loads[after - 1]!, loads[after]!) : null;
    const queued = [...(during?.threads ?? [])]
      .filter(([, { queuedMs }]) => queuedMs > 0.5)
      .map(([name, { queuedMs }]) => `${name} queued ${queuedMs.toFixed(1)} ms`);
    const parted = Object.entries(partsUs).map(([part, us]) => `${part} ${ms(us)}`);
    const around = [`stolen ${during?.stolenMs ?? '?'} ms`, ...queued];
    print(
      `  step ${step} waited ${ms(waitUs)} (${cause}): ${parted.join(', ')}; then ${around.join(', ')}`,
    );
  }
}

function ms(us: number): string {
  return `${(us / 1000).toFixed(2)} ms`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
