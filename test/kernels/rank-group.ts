// Several ranks of one model in this process, as one backend: steps go to all, results are awaited
// from all and must have equal hashes. Each rank is a whole backend with its part of the model.
import { randomInt, randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rankTokens } from '../../common/rank-tokens.ts';
import type { Backend, BackendInfo, BackendLoad, StepResult } from '../../kernels/backend.ts';
import type { ModelConfig } from '../../common/config.ts';
import { readModelConfig } from '../../common/model-config.ts';
import { CpuBackend } from '../../kernels/cpu-backend.ts';
import { groupMemory } from '../../kernels/reference/collectives.ts';
import { ReferenceBackend } from '../../kernels/reference/reference-backend.ts';
import type { Program } from '../../kernels/program.ts';
import { buildProgram } from '../../worker/program/build.ts';
import { dummyWeights } from '../../worker/weights/dummy-weights.ts';
import { loadOf, type TestLoad } from './demo-backend.ts';

export class RankGroupBackend implements Backend {
  readonly name = 'cpu';
  onStep: ((result: StepResult) => void) | null = null;
  onError: ((error: Error) => void) | null = null;
  readonly ranks: readonly Backend[];
  private readonly results: StepResult[][];

  constructor(ranks: readonly Backend[]) {
    this.ranks = ranks;
    this.results = ranks.map(() => []);
    ranks.forEach((backend, rank) => {
      backend.onStep = (result) => this.take(rank, result);
      backend.onError = (error) => this.onError?.(error);
    });
  }

  load(): Promise<BackendInfo> {
    throw new Error('the ranks are loaded one by one');
  }

  submit(...args: Parameters<Backend['submit']>): void {
    for (const backend of this.ranks) backend.submit(...args);
  }

  position() {
    return this.ranks[0]!.position();
  }

  async close(): Promise<void> {
    await Promise.all(this.ranks.map((backend) => backend.close()));
  }

  private take(rank: number, result: StepResult): void {
    this.results[rank]!.push(result);
    while (this.results.every((results) => results.length > 0)) {
      const all = this.results.map((results) => results.shift()!);
      if (all.some(({ hash }) => hash !== all[0]!.hash)) throw new Error('ranks disagree');
      this.onStep?.(all[0]!);
    }
  }
}

/** A path where ranks can meet. */
export const meetingPath = () => join(tmpdir(), `vt-ranks-${randomUUID().slice(0, 8)}`);

/** The group's rank of a load. */
export const rankGroup = (path: string, rank: number, numRanks: number, timeoutMs = 60_000) => ({
  group: { path, rank, numRanks, timeoutMs },
});

/** Of a host of their own for each group: all of 127/8 is this machine. */
export const meetingHost = () => `127.${randomInt(1, 255)}.${randomInt(256)}.${randomInt(1, 255)}`;

/** The same for ranks that meet over TCP, at ports of a host that nobody else uses. */
export function networkGroup(host: string, rank: number, numRanks: number, timeoutMs = 60_000) {
  const addresses = Array.from({ length: numRanks }, (_, other) => `${host}:${29_600 + other}`);
  const network = { addresses, ...rankTokens(host, rank, numRanks) };
  return { group: { path: '', rank, numRanks, timeoutMs, network } };
}

export interface RankOptions extends TestLoad {
  readonly device?: 'cpu' | 'reference';
  /** Ranks meet over TCP, not in shared memory. */
  readonly overTcp?: boolean;
  readonly timeoutMs?: number;
  /** A model of this shape with random weights, in place of the folder's. */
  readonly madeUp?: ModelConfig;
}

/** The parts of a model folder for `numRanks` ranks, loaded; programs by rank. */
export async function loadRanks(
  folder: string,
  numRanks: number,
  options: RankOptions = {},
): Promise<{ backend: RankGroupBackend; programs: readonly Program[] }> {
  const { device, overTcp, timeoutMs, maxNumTokens = 512, maxNumLogits = 32, ...more } = options;
  const { madeUp, ...rest } = more;
  const config = madeUp ?? readModelConfig(folder);
  const programs = Array.from({ length: numRanks }, (_, rank) =>
    buildProgram(config, {
      actDtype: 'f32',
      weightDtype: config.dtype,
      kvDtype: 'f32',
      interleave: 0,
      maxNumTokens,
      maxNumLogits,
      parallel: { rank, numRanks },
    }),
  );
  const path = meetingPath();
  const host = meetingHost();
  const group = (rank: number) =>
    overTcp === true
      ? networkGroup(host, rank, numRanks, timeoutMs)
      : rankGroup(path, rank, numRanks, timeoutMs);
  const memory = groupMemory(numRanks, maxNumTokens * Math.max(config.hiddenSize, 2048) * 4);
  const ranks = programs.map((_, rank) =>
    device === 'reference'
      ? new ReferenceBackend(numRanks === 1 ? null : { rank, numRanks, memory })
      : new CpuBackend(),
  );
  const load = (program: Program, rank: number): BackendLoad =>
    loadOf(program, folder, {
      ...rest,
      ...(madeUp && { weights: dummyWeights(program, 1) }),
      ...(numRanks > 1 && device !== 'reference' && group(rank)),
    });
  await Promise.all(ranks.map((backend, rank) => backend.load(load(programs[rank]!, rank))));
  return { backend: new RankGroupBackend(ranks), programs };
}
