// A model as it is recorded: nodes over symbolic tensors, in execution order, each tensor written
// by one node. Passes rewrite the list until every node is an op of the kernel table. Knows
// nothing of memory: buffers come from the arena planner.
import type { OpName } from '../../kernels/ops.ts';
import type { Dtype, SymbolicSize, WeightSource } from '../../kernels/program.ts';

/** An activation [rows, columns]; two tensors are the same only if they are the same object. */
export interface Tensor {
  readonly kind: 'tensor';
  readonly name: string;
  readonly rows: SymbolicSize;
  readonly columns: number;
  readonly dtype: Dtype;
  /** See BufferSpec of kernels/program.ts. */
  readonly rowsAtOnce?: number;
}

/** See WeightSpec of kernels/program.ts. */
export interface Weight {
  readonly kind: 'weight';
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly sources: readonly WeightSource[];
  readonly constant: Float32Array | null;
  readonly interleave: number;
}

/**
 * Ops that a model may use but no backend has: passes fuse each into an op of the table.
 * add, mul: elementwise; silu; slice: columns [start, start + columns) of x; headNorm: rmsNorm of
 * each head; rope: rotates each head; cachedAttention: writes k and v to the cache, then attends.
 */
export type ModelOpName =
  'add' | 'mul' | 'silu' | 'slice' | 'headNorm' | 'rope' | 'cachedAttention';

export type Args = Readonly<Record<string, Tensor | Weight>>;

export interface Node {
  readonly op: OpName | ModelOpName;
  /** By name; `out`, and `sum` beside it, is what the node writes. */
  readonly args: Args;
  readonly attrs: Readonly<Record<string, number>>;
}

const collectives: ReadonlySet<Node['op']> = new Set([
  'allReduce',
  'allReduceResidualNorm',
  'sampleSharded',
]);

/** Ops that read what other ranks wrote. */
export function isCollective(op: Node['op']): boolean {
  return collectives.has(op);
}

/** Names of the arguments that other ranks read. */
export function readByOthers(op: Node['op']): readonly string[] {
  if (op === 'sampleSharded') return ['x', 'out'];
  return isCollective(op) ? ['x'] : [];
}

/** Names of the arguments that the node makes. */
export function madeBy({ args }: Node): readonly string[] {
  return ['out', 'sum'].filter((name) => name in args);
}

export function tensorArg(node: Node, name: string): Tensor {
  const arg = node.args[name];
  if (arg?.kind !== 'tensor') throw new Error(`${node.op} has no tensor ${name}`);
  return arg;
}

export function weightArg(node: Node, name: string): Weight {
  const arg = node.args[name];
  if (arg?.kind !== 'weight') throw new Error(`${node.op} has no weight ${name}`);
  return arg;
}

/** Who writes and who reads each tensor of a node list. */
export class Uses {
  private readonly writers = new Map<Tensor, Node>();
  private readonly readers = new Map<Tensor, Node[]>();

  constructor(nodes: readonly Node[]) {
    for (const node of nodes)
      for (const name in node.args) {
        const arg = node.args[name]!;
        if (arg.kind !== 'tensor') continue;
        if (madeBy(node).includes(name)) this.writers.set(arg, node);
        else this.readers.set(arg, [...(this.readers.get(arg) ?? []), node]);
      }
  }

  writer(tensor: Tensor): Node | undefined {
    return this.writers.get(tensor);
  }

  readersOf(tensor: Tensor): readonly Node[] {
    return this.readers.get(tensor) ?? [];
  }

  /** The node of kind `op` that wrote the tensor for this one reader alone. */
  soleProducer(tensor: Tensor, op: Node['op']): Node | undefined {
    const node = this.writer(tensor);
    return node?.op === op && this.readersOf(tensor).length === 1 ? node : undefined;
  }
}
