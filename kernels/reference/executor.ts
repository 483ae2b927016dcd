// Runs a program's ops one after another over a step, in float64 with one rounding at the end of
// each op. Holds arena, weights and cache; knows no threads.
import type { StepInputColumns } from '../../common/wire/step.ts';
import type { OpName } from '../ops.ts';
import type { Program, SymbolicSize } from '../program.ts';
import { attention, ropeAndCache, ropeCosSin, type KvCache } from './attention.ts';
import { makeBatch, type Batch } from './batch.ts';
import { bindOps } from './bind.ts';
import type { BoundOp } from './bound-op.ts';
import {
  allReduce,
  allReduceResidualNorm,
  Exchange,
  gatherLogits,
  type ReferenceGroup,
} from './collectives.ts';
import { gatherLogitRows, headRmsNorm, rmsNorm, siluAndMul } from './elementwise.ts';
import { roundTo } from './float-formats.ts';
import { embedding, linear } from './linear.ts';
import { RowTable } from './row-table.ts';
import { StepOutput } from './step-output.ts';

export interface ExecutorLoad {
  readonly program: Program;
  /** weights[i] is program.weights[i], widened. */
  readonly weights: readonly Float32Array[];
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxNumSeqs: number;
  readonly maxModelLen: number;
  /** The cache starts as NaN, so that reading what nobody wrote shows. */
  readonly poison: boolean;
  /** null where one rank runs the whole model. */
  readonly group: ReferenceGroup | null;
}

/** What an op works on beside its own arguments. */
interface StepContext {
  readonly batch: Batch;
  readonly kv: KvCache;
  readonly output: StepOutput;
  readonly exchange: Exchange | null;
  readonly vocabSize: number;
  /** Rows [firstLogit, firstLogit + numLogits) of batch.logitRows are in this pass. */
  firstLogit: number;
  numLogits: number;
}

type OpFunction = (op: BoundOp, context: StepContext, numRows: number) => void;

const functions: Readonly<Record<OpName, OpFunction>> = {
  embedding: (op, { batch }) => embedding(op, batch),
  ropeCosSin: (op, { batch }) => ropeCosSin(op, batch),
  rmsNorm: (op, { batch }, numRows) => rmsNorm(op, batch, numRows),
  linear: (op, { batch }, numRows) => linear(op, batch, numRows),
  headRmsNorm: (op, { batch }) => headRmsNorm(op, batch),
  ropeAndCache: (op, { batch, kv }) => ropeAndCache(op, batch, kv),
  attention: (op, { batch, kv }) => attention(op, batch, kv),
  siluAndMul: (op, { batch }) => siluAndMul(op, batch),
  gatherLogitRows: (op, { batch, firstLogit }, numRows) =>
    gatherLogitRows(op, batch, numRows, firstLogit),
  sample,
  allReduce: (op, { exchange }, numRows) => allReduce(op, exchange, numRows),
  allReduceResidualNorm: (op, { batch, exchange }, numRows) =>
    allReduceResidualNorm(op, batch, exchange, numRows),
  sampleSharded,
};

function sample(op: BoundOp, { batch, output, firstLogit, numLogits }: StepContext): void {
  const { data, columns } = op.tensors['logits']!;
  for (let l = 0; l < numLogits; l++)
    output.take(batch.logitRows[firstLogit + l]!, data.subarray(l * columns, (l + 1) * columns));
}

/** Every rank has all logits then: what ranks may spare each other is the others' affair. */
function sampleSharded(op: BoundOp, context: StepContext, numRows: number): void {
  const { batch, output, exchange, firstLogit, vocabSize } = context;
  gatherLogits(op, exchange, numRows, vocabSize).forEach((logits, l) =>
    output.take(batch.logitRows[firstLogit + l]!, logits),
  );
}

export class Executor {
  private readonly load: ExecutorLoad;
  private readonly table: RowTable;
  private readonly kv: KvCache;
  private readonly exchange: Exchange | null;
  private readonly ops: readonly BoundOp[];
  /** Index of the first op that works on logit rows. */
  private readonly tail: number;

  constructor(load: ExecutorLoad) {
    const { program, blockSize, numBlocks, group: ranks } = load;
    this.load = load;
    this.exchange = ranks && new Exchange(ranks);
    this.table = new RowTable({ ...load, vocabSize: program.vocabSize });
    this.ops = bindOps(program, load.weights);
    const tail = program.ops.findIndex(({ op }) => op === 'gatherLogitRows');
    this.tail = tail < 0 ? program.ops.length : tail;
    const group = program.kvGroups[0]!;
    const cache = () => {
      const size = numBlocks * blockSize * group.numKvHeads * group.headDim;
      return load.poison ? new Float32Array(size).fill(NaN) : new Float32Array(size);
    };
    const layers = Array.from({ length: group.numLayers }, () => ({ k: cache(), v: cache() }));
    this.kv = { layers, blockSize, dtype: group.dtype };
  }

  /** Applies the row changes, runs the step. `onOp` is told each op before it runs. */
  execute(columns: StepInputColumns, onOp: (opIndex: number) => void): StepOutput {
    const { program, maxNumSeqs, blockSize } = this.load;
    this.table.apply(columns);
    const { maxNumTokens, maxNumLogits } = program;
    const batch = makeBatch(this.table, columns, { maxNumSeqs, maxNumTokens, blockSize });
    const output = new StepOutput(batch);
    const { kv, exchange } = this;
    const { vocabSize } = program;
    const inputs = { batch, kv, output, exchange, vocabSize };
    const context: StepContext = { ...inputs, firstLogit: 0, numLogits: 0 };
    this.run(0, this.tail, context, onOp);
    const total = batch.logitRows.length;
    for (; context.firstLogit < total; context.firstLogit += maxNumLogits) {
      context.numLogits = Math.min(maxNumLogits, total - context.firstLogit);
      this.run(this.tail, this.ops.length, context, onOp);
    }
    return output;
  }

  private run(start: number, end: number, context: StepContext, onOp: (index: number) => void) {
    const counts: Readonly<Record<SymbolicSize, number>> = {
      numTokens: context.batch.numTokens,
      numLogits: context.numLogits,
    };
    for (let index = start; index < end; index++) {
      const bound = this.ops[index]!;
      onOp(index);
      const out = bound.tensors['out'] ?? bound.tensors['qkv'];
      const numRows = out ? counts[out.rows] : 0;
      functions[this.load.program.ops[index]!.op](bound, context, numRows);
      if (out) roundTo(out.dtype, out.data.subarray(0, numRows * out.columns));
    }
  }
}
