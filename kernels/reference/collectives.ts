// The ops that several ranks do together. The ranks of the reference backend are threads of one
// process: what each brings lies in memory that they share.
import { KernelError } from '../../common/errors.ts';
import type { Batch } from './batch.ts';
import { tensor, type BoundOp } from './bound-op.ts';
import { rmsNorm } from './elementwise.ts';
import { roundTo } from './float-formats.ts';

/** What a rank needs to meet the others. */
export interface ReferenceGroup {
  readonly rank: number;
  readonly numRanks: number;
  /** Two counters, then a part of equal size for each rank. */
  readonly memory: SharedArrayBuffer;
}

const headerBytes = 8;
const patienceMs = 60_000;

/** Room for `numRanks` ranks that exchange at most `numElements` numbers each. */
export function groupMemory(numRanks: number, numElements: number): SharedArrayBuffer {
  return new SharedArrayBuffer(headerBytes + numRanks * numElements * 4);
}

/** Gives x of every rank, in rank order. */
export class Exchange {
  private readonly group: ReferenceGroup;
  private readonly counters: Int32Array;
  private readonly parts: readonly Float32Array[];

  constructor(group: ReferenceGroup) {
    this.group = group;
    const { numRanks, memory } = group;
    const size = (memory.byteLength - headerBytes) / 4 / numRanks;
    this.counters = new Int32Array(memory, 0, 2);
    this.parts = Array.from(
      { length: numRanks },
      (_, rank) => new Float32Array(memory, headerBytes + rank * size * 4, size),
    );
  }

  all(x: Float32Array): Float32Array[] {
    this.parts[this.group.rank]!.set(x);
    this.barrier();
    const all = this.parts.map((part) => part.slice(0, x.length));
    this.barrier();
    return all;
  }

  /** Counter 0: how many have come; counter 1: how often all have. */
  private barrier(): void {
    const round = Atomics.load(this.counters, 1);
    if (Atomics.add(this.counters, 0, 1) === this.group.numRanks - 1) {
      Atomics.store(this.counters, 0, 0);
      Atomics.add(this.counters, 1, 1);
      Atomics.notify(this.counters, 1);
      return;
    }
    while (Atomics.load(this.counters, 1) === round)
      if (Atomics.wait(this.counters, 1, round, patienceMs) === 'timed-out')
        throw new KernelError('a rank did not come to a collective');
  }
}

/** out = sum over ranks of x (+ bias) (+ residual) */
export function allReduce(op: BoundOp, exchange: Exchange | null, numRows: number): void {
  addUp(op, tensor(op, 'out').data, exchange, numRows);
}

/** The norm is that of the rounded sum. */
export function allReduceResidualNorm(
  op: BoundOp,
  batch: Batch,
  exchange: Exchange | null,
  numRows: number,
): void {
  const sum = tensor(op, 'sum');
  addUp(op, sum.data, exchange, numRows);
  roundTo(sum.dtype, sum.data.subarray(0, numRows * sum.columns));
  rmsNorm({ ...op, tensors: { ...op.tensors, x: sum } }, batch, numRows);
}

function addUp(op: BoundOp, out: Float32Array, exchange: Exchange | null, numRows: number): void {
  const { columns } = tensor(op, 'x');
  const parts = partsOf(op, exchange, numRows);
  const bias = op.weights['bias'];
  const residual = op.tensors['residual']?.data;
  for (let i = 0; i < numRows * columns; i++) {
    let sum = 0;
    for (const part of parts) sum += part[i]!;
    if (bias) sum += bias[i % columns]!;
    if (residual) sum += residual[i]!;
    out[i] = sum;
  }
}

/** The columns of each rank's x side by side, `numIds` of each row. */
export function gatherLogits(
  op: BoundOp,
  exchange: Exchange | null,
  numRows: number,
  numIds: number,
): Float32Array[] {
  const width = tensor(op, 'x').columns;
  const parts = partsOf(op, exchange, numRows);
  return Array.from({ length: numRows }, (_, row) =>
    Float32Array.from(
      { length: numIds },
      (_, id) => parts[Math.floor(id / width)]![row * width + (id % width)]!,
    ),
  );
}

function partsOf(op: BoundOp, exchange: Exchange | null, numRows: number): Float32Array[] {
  const { data, columns } = tensor(op, 'x');
  const x = data.subarray(0, numRows * columns);
  return exchange ? exchange.all(x) : [x];
}
