// Why a worker waited: the way from the result of one step to the next step's arrival, cut into its
// parts by the engine's timeline. A step is late when the device had nothing to do before it came.
import type { TraceEvent } from '../../engine/timeline.ts';

/** Parts of the way, in order: who had the step in hand. */
export const parts = {
  report:
    'result on its way to the engine (worker’s threads, sockets, engine’s I/O thread, its queue)',
  engine: 'engine at work: update, schedule, encode',
  delivery: 'step on its way to the worker (I/O threads, sockets, worker’s event loop)',
} as const;
export type Part = keyof typeof parts;

export interface LateStep {
  readonly step: number;
  /** CLOCK_MONOTONIC, when it came. */
  readonly atUs: number;
  /** What the worker waited for it. */
  readonly waitUs: number;
  /** The part that took longest beyond its median. */
  readonly cause: Part;
  readonly partsUs: Readonly<Record<Part, number>>;
}

export interface Waits {
  readonly numSteps: number;
  readonly busyUs: number;
  readonly waitUs: number;
  readonly medianUs: Readonly<Record<Part, number>>;
  readonly late: readonly LateStep[];
}

/** `events` as /debug/timeline has them; steps up to `afterStep` are left out. */
export function findLateSteps(events: readonly TraceEvent[], afterStep: number): Waits {
  const byStep = (name: string) =>
    new Map(
      events
        .filter((event) => event.name === name)
        .map((event) => [Number(event.args['step']), event] as const),
    );
  const [executed, updated, sent] = [byStep('execute'), byStep('update'), byStep('sent')];
  let busyUs = 0;
  let waitUs = 0;
  const all: { step: number; atUs: number; waitUs: number; partsUs: Record<Part, number> }[] = [];
  for (const [step, { ts, dur, args }] of executed) {
    if (step <= afterStep) continue;
    const idleUs = Number(args['deviceIdleUs']);
    busyUs += dur!;
    waitUs += idleUs;
    const send = sent.get(step);
    // Its result is what let the engine schedule this step.
    const result = Number(send?.args['afterStep']);
    const before = executed.get(result);
    const update = updated.get(result);
    if (!before || !update || !send) continue;
    const partsUs = {
      report: update.ts! - (before.ts! + before.dur!),
      engine: send.ts! - update.ts!,
      delivery: ts! - send.ts!,
    };
    all.push({ step, atUs: ts!, waitUs: idleUs, partsUs });
  }
  const names = Object.keys(parts) as Part[];
  const late = all.filter((each) => each.waitUs > 0);
  // A step that is early waits at the worker: how long it was under way is known of late ones only.
  const medianUs = {
    report: median(all.map(({ partsUs }) => partsUs.report)),
    engine: median(all.map(({ partsUs }) => partsUs.engine)),
    delivery: median(late.map(({ partsUs }) => partsUs.delivery)),
  };
  return {
    numSteps: [...executed.keys()].filter((step) => step > afterStep).length,
    busyUs,
    waitUs,
    medianUs,
    late: late.map((each) => ({
      ...each,
      cause: names.reduce((worst, name) =>
        each.partsUs[name] - medianUs[name] > each.partsUs[worst] - medianUs[worst] ? name : worst,
      ),
    })),
  };
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
