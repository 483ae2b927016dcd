// The ops that several ranks do together. The ranks of the reference backend are threads of one
// process: what each brings lies in memory that they share.
import { KernelError } from '../../common/errors.ts';
import { tensor, type BoundOp } from './bound-op.ts';

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
  const { data: out, columns } = tensor(op, 'out');
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

/** out = the columns of each rank's x side by side, as many as out has */
export function allGather(op: BoundOp, exchange: Exchange | null, numRows: number): void {
  const { data: out, columns } = tensor(op, 'out');
  const width = tensor(op, 'x').columns;
  const parts = partsOf(op, exchange, numRows);
  for (let row = 0; row < numRows; row++)
    for (let column = 0; column < columns; column++)
      out[row * columns + column] =
        parts[Math.floor(column / width)]![row * width + (column % width)]!;
}

function partsOf(op: BoundOp, exchange: Exchange | null, numRows: number): Float32Array[] {
  const { data, columns } = tensor(op, 'x');
  const x = data.subarray(0, numRows * columns);
  return exchange ? exchange.all(x) : [x];
}
