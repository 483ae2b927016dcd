// A worker process without a model, on real time: same wire, same rows and blocks, tokens from
// FakeModel. Set in its environment: VLLM_TS_FAKE_STEP_US (what a step takes, default 3000) and
// VLLM_TS_FAKE_FAIL_AT (step at which it reports a failure), VLLM_TS_FAKE_HANG_AT (step at which it
// stands still for ever).
//
// It reports when each step began and ended on the device's own clock. A step begins when the device
// is free and the step has arrived in this process, and ends when the device says so: a timer that is
// late makes a longer step, and is no time in which the device had to wait for the engine.
import { Worker } from 'node:worker_threads';
import type { WorkerSlice } from '../common/config.ts';
import { runProcess, type ProcessContext, type RunningProcess } from '../common/process.ts';
import { makeHello } from '../common/wire/handshake.ts';
import type { StepInput, WorkerToEngine } from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import { DealerLink } from '../common/wire/transport.ts';
import { FakeModel } from './fake-model.ts';

const heartbeatMs = 500;
const numberFrom = (name: string, value: number) => Number(process.env[name] ?? value);

/** Steps that can be on their way to the device: the depth is 8 at most. */
const maxArrived = 64;

// The device: sleeps exactly (Atomics.wait), unlike timers of the event loop. It holds no socket.
const deviceSource = `
const { parentPort, workerData } = require('node:worker_threads');
const { signal, arrivedUs, stepMs } = workerData;
const never = new Int32Array(new SharedArrayBuffer(4));
const now = () => Number(process.hrtime.bigint()) / 1000;
let freeUs = 0;
for (let done = 0; ; done++) {
  while (Atomics.load(signal, 0) <= done) Atomics.wait(signal, 0, done);
  // A step that is there already follows at once, however late this thread woke up.
  const startUs = Math.max(freeUs, arrivedUs[done % arrivedUs.length]);
  const left = stepMs - (now() - startUs) / 1000;
  if (left > 0) Atomics.wait(never, 0, 0, left);
  const endUs = Math.max(startUs + stepMs * 1000, now());
  const deviceIdleUs = done === 0 ? 0 : startUs - freeUs;
  freeUs = endUs;
  parentPort.postMessage({ startUs, endUs, deviceIdleUs });
}`;

async function start(context: ProcessContext<WorkerSlice>): Promise<RunningProcess> {
  const { slice, generation, token } = context;
  const { rank, maxNumSeqs, maxModelLen, blockSize } = slice;
  const { vocabSize } = slice.model;
  const numBlocks = 1 + maxNumSeqs * Math.ceil(maxModelLen / blockSize);
  const failAt = numberFrom('VLLM_TS_FAKE_FAIL_AT', 0);
  const hangAt = numberFrom('VLLM_TS_FAKE_HANG_AT', 0);
  const model = new FakeModel({
    maxNumSeqs,
    maxModelLen,
    numBlocks,
    blockSize,
    vocabSize,
    readHistory: false,
    slidingWindow: 0,
  });
  const signal = new Int32Array(new SharedArrayBuffer(4));
  const stepMs = numberFrom('VLLM_TS_FAKE_STEP_US', 3000) / 1000;
  const arrivedUs = new Float64Array(new SharedArrayBuffer(8 * maxArrived));
  const workerData = { signal, arrivedUs, stepMs };
  const device = new Worker(deviceSource, { eval: true, workerData });

  function submit(message: StepInput, atUs: number): void {
    // Nothing that comes after a failure is executed.
    if (generation === 0 && failAt > 0 && message.step > failAt) return;
    if (generation === 0 && failAt > 0 && message.step === failAt) {
      const message = 'told to fail';
      send({ kind: 'workerFailed', rank, step: failAt, op: 'fake', blamedRank: null, message });
      return;
    }
    model.submit(message);
    if (generation === 0 && hangAt > 0 && message.step >= hangAt) return;
    const numArrived = Atomics.load(signal, 0);
    arrivedUs[numArrived % maxArrived] = atUs;
    Atomics.store(signal, 0, numArrived + 1);
    Atomics.notify(signal, 0);
  }

  device.on('message', (times: Record<'startUs' | 'endUs' | 'deviceIdleUs', number>) => {
    send({ kind: 'stepOutput', generation, rank, ...times, ...model.execute() });
  });

  const info = {
    device: 'fake',
    dtype: 'f32',
    kvCacheDtype: 'f32',
    numBlocks,
    blockBytes: 1,
    vocabSize,
    memory: { kvCache: numBlocks },
  };
  const link = new DealerLink(slice.engineAddress, makeHello('worker', rank, generation, token), {
    message: (raw) => {
      const atUs = Number(process.hrtime.bigint()) / 1000;
      const message = receive('engineToWorker', raw);
      if (message.kind === 'stepInput') submit(message, atUs);
      else if (message.kind === 'welcome') send({ kind: 'workerReady', rank, generation, ...info });
      else context.fatal(new Error(message.message));
    },
    rejected: (error) => context.fatal(error),
  });
  const send = (message: WorkerToEngine) => link.send(message);
  const ticker = setInterval(() => {
    const step = model.inFlight[0]?.step;
    if (step !== undefined) send({ kind: 'heartbeat', rank, step, opIndex: 0 });
  }, heartbeatMs);
  await new Promise((resolve) => device.once('online', resolve));
  return {
    info,
    stop: async () => {
      clearInterval(ticker);
      link.close();
      await device.terminate();
    },
  };
}

runProcess<WorkerSlice>('worker', start);
