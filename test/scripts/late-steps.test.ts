import t from 'tap';
import type { TraceEvent } from '../../engine/timeline.ts';
import { findLateSteps } from '../../scripts/bench/late-steps.ts';

/** A step of 3,000 us; [when it was sent, began, and the one `depth` before was taken in]. */
function step(n: number, takenUs: number, sentUs: number, startUs: number, idleUs: number) {
  const base = { pid: 1, tid: 0 };
  const args = { step: n, afterStep: n - 2 };
  return [
    { ...base, name: 'update', ph: 'X', ts: takenUs, dur: 100, args: { step: n - 2 } },
    { ...base, name: 'sent', ph: 'i', ts: sentUs, args },
    {
      ...base,
      name: 'execute',
      ph: 'X',
      ts: startUs,
      dur: 3000,
      args: { ...args, deviceIdleUs: idleUs },
    },
  ] satisfies TraceEvent[];
}

const steps = [
  step(1, 0, 0, 0, 0),
  step(2, 0, 0, 3000, 0),
  step(3, 3100, 3200, 6000, 0),
  // Taken in late, after the device had run out of work.
  step(4, 11_000, 11_100, 11_200, 2200),
  step(5, 9100, 9200, 14_200, 0),
  // The engine took its time.
  step(6, 14_300, 18_000, 18_100, 900),
].flat();

t.test('findLateSteps says how long the device waited, and who had the step', (t) => {
  const waits = findLateSteps(steps, 0);
  t.equal(waits.numSteps, 6);
  t.equal(waits.busyUs, 18_000);
  t.equal(waits.waitUs, 3100);
  t.match(waits.late, [
    {
      step: 4,
      waitUs: 2200,
      cause: 'report',
      partsUs: { report: 5000, engine: 100, delivery: 100 },
    },
    {
      step: 6,
      waitUs: 900,
      cause: 'engine',
      partsUs: { report: 100, engine: 3700, delivery: 100 },
    },
  ]);
  t.equal(waits.late.length, 2);
  t.end();
});

t.test('findLateSteps leaves the ramp out', (t) => {
  const waits = findLateSteps(steps, 4);
  t.match(waits, { numSteps: 2, busyUs: 6000, waitUs: 900 });
  t.end();
});
