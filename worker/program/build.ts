// From a model's configuration to the program that a backend runs: record, fuse, plan, check.
import type { ModelConfig } from '../../common/config.ts';
import type { Parallel } from '../../common/tensor-parallel.ts';
import type { OpName } from '../../kernels/ops.ts';
import { ops } from '../../kernels/ops.ts';
import type { ArgRef, BufferSpec, Dtype, Op, Program, WeightSpec } from '../../kernels/program.ts';
import { models } from '../models/registry.ts';
import { planArena } from './arena.ts';
import { checkProgram } from './check.ts';
import type { Node, Tensor, Weight } from './graph.ts';
import { fuseAllReduceNorm } from './passes/fuse-all-reduce-norm.ts';
import { fuseAttention } from './passes/fuse-attention.ts';
import { fuseResidual } from './passes/fuse-residual.ts';
import { fuseSiluAndMul } from './passes/fuse-silu-and-mul.ts';
import { mergeLinears } from './passes/merge-linears.ts';
import { shard } from './passes/shard.ts';
import { Recorder } from './recorder.ts';

export interface BuildOptions {
  /** dtype of activations. */
  readonly actDtype: Dtype;
  /** dtype that weights are kept in. */
  readonly weightDtype: Dtype;
  readonly kvDtype: Dtype;
  /** Gate and up rows alternate in groups of this many; 0 = gate rows, then up rows. */
  readonly interleave: number;
  /** Rows of a step that gate and up lie in memory for, where that is less than all of them. */
  readonly gateUpRows?: number;
  /** Whether a linear may write over its residual; it may where this is not given. */
  readonly residualInPlace?: boolean;
  /** Most tokens of a step; most logit rows of one pass over the ops from gatherLogitRows on. */
  readonly maxNumTokens: number;
  readonly maxNumLogits: number;
  /** The rank whose part of the model it is; default: the whole model. */
  readonly parallel?: Parallel;
}

export function buildProgram(config: ModelConfig, options: BuildOptions): Program {
  const recorder = new Recorder(options);
  const model = (models as Readonly<Record<string, (typeof models)[keyof typeof models]>>)[
    config.architecture
  ];
  if (!model) throw new Error(`no model file for ${config.architecture}`);
  model(recorder, config);
  const nodes = shard(recorder.nodes, options.parallel ?? { rank: 0, numRanks: 1 });
  const program = lower(fuse(nodes, options), config, options);
  checkProgram(program);
  return program;
}

function fuse(nodes: readonly Node[], { interleave, gateUpRows }: BuildOptions): Node[] {
  const layers = fuseSiluAndMul(fuseAttention(mergeLinears(nodes)), interleave, gateUpRows);
  return fuseAllReduceNorm(fuseResidual(layers));
}

/** Nodes to ops over buffers and weights by index. */
function lower(nodes: readonly Node[], config: ModelConfig, options: BuildOptions): Program {
  const { actDtype, kvDtype, maxNumTokens, maxNumLogits, residualInPlace = true } = options;
  const { numLayers, headDim, slidingWindow: window, vocabSize } = config;
  const maxRows = { numTokens: maxNumTokens, numLogits: maxNumLogits };
  const plan = planArena(nodes, maxRows, residualInPlace);
  const buffers = new Indexed<Tensor>();
  const weights = new Indexed<Weight>();
  const refOf = (arg: Tensor | Weight): ArgRef =>
    arg.kind === 'weight'
      ? { weight: weights.indexOf(arg) }
      : { buffer: buffers.indexOf(plan.storageOf.get(arg)!) };
  const lowered = nodes.map(({ op, args, attrs }): Op => {
    if (!isTableOp(op)) throw new Error(`${op} has no op of its own, and no pass fused it`);
    const refs = Object.entries(args).map(([name, arg]) => [name, refOf(arg)] as const);
    return { op, args: Object.fromEntries(refs), attrs };
  });
  return {
    ops: lowered,
    buffers: buffers.items.map(({ name, dtype, rows, columns, rowsAtOnce }, i): BufferSpec => ({
      name,
      dtype,
      rows,
      columns,
      ...(rowsAtOnce !== undefined && { rowsAtOnce }),
      offset: plan.offsets.get(buffers.items[i]!)!,
    })),
    weights: weights.items.map(
      ({ name, dtype, shape, sources, constant, interleave }): WeightSpec => ({
        name,
        dtype,
        shape,
        sources,
        constant,
        interleave,
      }),
    ),
    kvGroups: [{ numLayers, numKvHeads: kvHeadsOf(nodes), headDim, dtype: kvDtype, window }],
    vocabSize,
    actDtype,
    arenaBytes: plan.bytes,
    maxNumTokens,
    maxNumLogits,
  };
}

/** A rank may have fewer of them than the model. */
function kvHeadsOf(nodes: readonly Node[]): number {
  const attention = nodes.find(({ op }) => op === 'attention');
  if (!attention) throw new Error('the model has no attention');
  return attention.attrs['numKvHeads']!;
}

function isTableOp(op: Node['op']): op is OpName {
  return Object.hasOwn(ops, op);
}

/** Numbers items in the order of their first use. */
class Indexed<T> {
  readonly items: T[] = [];
  private readonly indices = new Map<T, number>();

  indexOf(item: T): number {
    const known = this.indices.get(item);
    if (known !== undefined) return known;
    this.indices.set(item, this.items.length);
    return this.items.push(item) - 1;
  }
}
