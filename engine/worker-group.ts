// What the engine knows of its workers: who is ready, which results have come, and whether each one
// is alive. A step is done when every rank has answered; rank 0 brings the columns. No sockets: time
// and messages are handed in.
import { silenceLimitMs } from '../common/own-pauses.ts';
import type { Heartbeat, StepOutput, WorkerReady } from '../common/wire/messages.ts';

interface Rank {
  /** Generations below are dead; -1 before the first. */
  generation: number;
  ready: WorkerReady | null;
  heardMs: number;
  /** Where the device is, and since when. */
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

  generationOf(rank: number): number {
    return this.ranks[rank]!.generation;
  }

  /** A worker of this rank has connected; false if the rank is unknown or a newer one was here. */
  join(rank: number, generation: number, nowMs: number): boolean {
    const state = this.ranks[rank];
    if (!state || generation < state.generation) return false;
    this.leave(rank);
    state.generation = generation;
    state.heardMs = nowMs;
    return true;
  }

  setReady(rank: number, ready: WorkerReady): void {
    this.ranks[rank]!.ready = ready;
  }

  /** The rank is dead or to be replaced: nothing of it counts any more. */
  leave(rank: number): void {
    const state = this.ranks[rank]!;
    state.ready = null;
    state.outputs.length = 0;
  }

  /** Results of steps that will never complete. */
  dropOutputs(): void {
    for (const { outputs } of this.ranks) outputs.length = 0;
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
    const first = this.ranks[0]!.outputs[0]!;
    for (const [rank, { outputs }] of this.ranks.entries()) {
      const output = outputs.shift()!;
      if (output.step !== step)
        return { rank, reason: `answered step ${output.step} instead of ${step}` };
      if (output.hash !== first.hash)
        return { rank, reason: `disagrees with rank 0 after step ${step}` };
    }
    return first;
  }

  /** Call while a step is in flight. */
  findFault(nowMs: number): WorkerFault | null {
    for (const [rank, state] of this.ranks.entries()) {
      const silentMs = nowMs - state.heardMs;
      if (silentMs > silenceLimitMs)
        return { rank, reason: `no sign of life for ${Math.round(silentMs)} ms` };
      if (nowMs - state.movedMs > this.stepTimeoutMs)
        return {
          rank,
          reason: `hung in op ${state.opIndex} of step ${state.step} for ${this.stepTimeoutMs} ms`,
        };
    }
    return null;
  }

  private moved(state: Rank, step: number, opIndex: number, nowMs: number): void {
    state.heardMs = nowMs;
    state.movedMs = nowMs;
    state.step = step;
    state.opIndex = opIndex;
  }
}
