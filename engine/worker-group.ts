// What the engine knows of its workers: who is ready, which results have come, and whether each one
// is alive. A step is done when every rank has answered; rank 0 brings the columns. When one is lost
// all are: the others cannot go on without it, and are replaced with it under one generation. No
// sockets: time and messages are handed in.
import { silenceLimitMs } from '../common/own-pauses.ts';
import type { Heartbeat, StepOutput, WorkerReady } from '../common/wire/messages.ts';

interface Rank {
  /** Of the worker that was here last; -1 before the first. */
  generation: number;
  ready: WorkerReady | null;
  heardMs: number;
  /** Where the device is, and since when; step 0: it has had none. opIndex -1: behind its last op. */
  step: number;
  opIndex: number;
  movedMs: number;
  /** Results not yet taken, in step order. */
  readonly outputs: StepOutput[];
}

export interface WorkerFault {
  readonly rank: number;
  readonly reason: string;
}

export class WorkerGroup {
  private readonly ranks: Rank[];
  private readonly stepTimeoutMs: number;
  /** Workers of older generations are dead. */
  private generation = 0;

  constructor(numWorkers: number, stepTimeoutMs: number) {
    this.stepTimeoutMs = stepTimeoutMs;
    this.ranks = Array.from({ length: numWorkers }, () => ({
      generation: -1,
      ready: null,
      heardMs: 0,
      step: 0,
      opIndex: 0,
      movedMs: 0,
      outputs: [],
    }));
  }

  /** All ranks are ready: what they have in common, with the fewest blocks; else null. */
  get ready(): WorkerReady | null {
    let least: WorkerReady | null = null;
    for (const { ready } of this.ranks) {
      if (!ready) return null;
      if (!least || ready.numBlocks < least.numBlocks) least = ready;
    }
    return least;
  }

  /** owner -> bytes of every rank, for GET /memory. */
  get memory(): Record<string, Readonly<Record<string, number>>> {
    const all: Record<string, Readonly<Record<string, number>>> = {};
    this.ranks.forEach(({ ready }, rank) => {
      if (ready) all[`worker ${rank}`] = ready.memory;
    });
    return all;
  }

  has(rank: number | null): rank is number {
    return rank !== null && rank < this.ranks.length;
  }

  generationOf(rank: number): number {
    return this.ranks[rank]!.generation;
  }

  /** Whether a worker that is lost was one to lose. */
  isCurrent(rank: number, generation: number): boolean {
    return generation === this.generationOf(rank) && generation >= this.generation;
  }

  /** A worker of this rank has connected; false if the rank is unknown or a newer one was here. */
  join(rank: number, generation: number, nowMs: number): boolean {
    const state = this.ranks[rank];
    if (!state || generation < this.generation) return false;
    if (generation > this.generation) this.leaveAll();
    this.generation = generation;
    state.ready = null;
    state.outputs.length = 0;
    state.generation = generation;
    state.heardMs = nowMs;
    state.step = 0;
    return true;
  }

  /** For an error: where a rank was when it was last heard of; empty if it has had no step. */
  lastPlace(rank: number): string {
    const { step, opIndex } = this.ranks[rank]!;
    if (step === 0) return '';
    return opIndex < 0
      ? `; it had answered step ${step}`
      : `; it was last heard of in op ${opIndex} of step ${step}`;
  }

  setReady(rank: number, ready: WorkerReady): void {
    this.ranks[rank]!.ready = ready;
  }

  /**
   * A rank is dead or to be replaced: nothing of any of them counts any more. One that is alone may
   * come back; of several the next generation does.
   */
  loseAll(): void {
    this.leaveAll();
    if (this.ranks.length > 1) this.generation = Math.max(...this.generations) + 1;
  }

  addOutput(rank: number, output: StepOutput, nowMs: number): void {
    const state = this.ranks[rank]!;
    state.outputs.push(output);
    this.moved(state, output.step, -1, nowMs);
  }

  heartbeat(rank: number, { step, opIndex }: Heartbeat, nowMs: number): void {
    const state = this.ranks[rank]!;
    state.heardMs = nowMs;
    if (step !== state.step || opIndex !== state.opIndex) this.moved(state, step, opIndex, nowMs);
  }

  /** The device had nothing to do until now. */
  wakeUp(nowMs: number): void {
    for (const state of this.ranks) {
      state.heardMs = nowMs;
      state.movedMs = nowMs;
    }
  }

  /**
   * Rank 0's result of `step` if all ranks have answered, a fault if they disagree, null if some
   * have not answered.
   */
  takeOutput(step: number): StepOutput | WorkerFault | null {
    for (const { outputs } of this.ranks) if (outputs.length === 0) return null;
    const answers = this.ranks.map(({ outputs }) => outputs.shift()!);
    const stray = answers.findIndex((output) => output.step !== step);
    if (stray >= 0)
      return { rank: stray, reason: `answered step ${answers[stray]!.step} instead of ${step}` };
    const rank = oddOneOut(answers.map(({ hash }) => hash));
    return rank < 0
      ? answers[0]!
      : { rank, reason: `disagrees with the others after step ${step}: it has other tokens` };
  }

  /** Call while a step is in flight. */
  findFault(nowMs: number): WorkerFault | null {
    for (const [rank, state] of this.ranks.entries()) {
      const silentMs = nowMs - state.heardMs;
      if (silentMs > silenceLimitMs)
        return {
          rank,
          reason: `no sign of life for ${Math.round(silentMs)} ms${this.lastPlace(rank)}`,
        };
      if (nowMs - state.movedMs > this.stepTimeoutMs)
        return {
          rank,
          reason: `hung in op ${state.opIndex} of step ${state.step} for ${this.stepTimeoutMs} ms`,
        };
    }
    return null;
  }

  private get generations(): number[] {
    return this.ranks.map(({ generation }) => generation);
  }

  private leaveAll(): void {
    for (const state of this.ranks) {
      state.ready = null;
      state.outputs.length = 0;
    }
  }

  private moved(state: Rank, step: number, opIndex: number, nowMs: number): void {
    state.heardMs = nowMs;
    state.movedMs = nowMs;
    state.step = step;
    state.opIndex = opIndex;
  }
}

/** The rank with whose hash fewest agree, of two the second; -1 if all agree. */
function oddOneOut(hashes: readonly number[]): number {
  if (hashes.every((hash) => hash === hashes[0])) return -1;
  const numSame = hashes.map((hash) => hashes.filter((other) => other === hash).length);
  return numSame.lastIndexOf(Math.min(...numSame));
}
