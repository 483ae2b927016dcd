// The one op sampleSharded over ranks in this process, and `sample` over the same logits, for tests
// that hold the one to the other.
import type { Op } from '../../../kernels/program.ts';
import type { BackendLoad, StepResult } from '../../../kernels/backend.ts';
import { shardRoom, tileIds } from '../../../kernels/ops.ts';
import { meetingPath, rankGroup } from '../rank-group.ts';
import { defaultLoad, Harness, type NewRow, type StepRow } from './harness.ts';
import { arg, makeProgram } from './one-op.ts';

export interface LogitsStep {
  readonly rows: readonly NewRow[];
  readonly scheduled: readonly StepRow[];
  /** [logit rows][vocabSize] */
  readonly logits: readonly Float32Array[];
}

/** Runs the same step anywhere: with all logits in one place, or with each rank's columns. */
export interface LogitsBackend {
  run(step: LogitsStep): Promise<StepResult[]>;
  close(): Promise<unknown>;
}

/** `columns`: of each buffer. */
function loadOp(
  op: Op,
  columns: readonly number[],
  vocabSize: number,
  numThreads: number,
  group: Pick<BackendLoad, 'group'> = {},
): Promise<Harness> {
  const buffers = columns.map((count) => ({ columns: count, logits: true as const }));
  const program = makeProgram({ ops: [op], buffers, rows: [], vocabSize }, 256);
  return Harness.load({ ...defaultLoad, numThreads, weights: [], program, ...group });
}

export async function loadWhole(vocabSize: number): Promise<LogitsBackend> {
  const op: Op = { op: 'sample', args: { logits: arg.buffer(0) }, attrs: {} };
  const harness = await loadOp(op, [vocabSize], vocabSize, 2);
  return {
    async run({ rows, scheduled, logits }) {
      harness.backend.writeBuffer(0, columnsOf(logits, 0, vocabSize));
      return [await harness.step(rows, scheduled)];
    },
    close: () => harness.close(),
  };
}

/** Results by rank. Ranks have one thread more each. */
export async function loadSharded(numRanks: number, vocabSize: number): Promise<LogitsBackend> {
  const width = Math.ceil(vocabSize / numRanks / tileIds) * tileIds;
  const path = meetingPath();
  const harnesses = await Promise.all(
    Array.from({ length: numRanks }, (_, rank) => {
      const args = { out: arg.buffer(0), x: arg.buffer(1) };
      const op: Op = { op: 'sampleSharded', args, attrs: { firstId: rank * width } };
      const group = rankGroup(path, rank, numRanks);
      return loadOp(op, [shardRoom(width), width], vocabSize, 1 + rank, group);
    }),
  );
  return {
    run: ({ rows, scheduled, logits }) =>
      Promise.all(
        harnesses.map((harness, rank) => {
          harness.backend.writeBuffer(1, columnsOf(logits, rank * width, width));
          return harness.step(rows, scheduled);
        }),
      ),
    close: () => Promise.all(harnesses.map((harness) => harness.close())),
  };
}

/** Columns from `start` on of every row; beyond the vocabulary numbers that nobody may read. */
function columnsOf(logits: readonly Float32Array[], start: number, count: number): Float32Array {
  const all = new Float32Array(logits.length * count).fill(NaN);
  logits.forEach((values, row) => all.set(values.subarray(start, start + count), row * count));
  return all;
}
