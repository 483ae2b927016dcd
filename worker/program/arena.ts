// Plans the activation arena: each tensor gets a fixed byte offset such that two tensors that are
// alive at the same time never overlap. Sizes are those of the largest step, so that one plan
// serves every step and memory is computed, not measured.
import { dtypeBytes, type SymbolicSize } from '../../kernels/program.ts';
import { isCollective, madeBy, readByOthers, tensorArg, type Node, type Tensor } from './graph.ts';

export const arenaAlignment = 256;

export interface ArenaPlan {
  /** Storage of each tensor; an out may share that of a residual that dies there. */
  readonly storageOf: ReadonlyMap<Tensor, Tensor>;
  readonly offsets: ReadonlyMap<Tensor, number>;
  readonly bytes: number;
}

interface Life {
  readonly tensor: Tensor;
  readonly bytes: number;
  readonly first: number;
  last: number;
}

export function planArena(
  nodes: readonly Node[],
  maxRows: Readonly<Record<SymbolicSize, number>>,
  residualInPlace: boolean,
): ArenaPlan {
  const lives = new Map<Tensor, Life>();
  const storageOf = new Map<Tensor, Tensor>();
  const lastUses = findLastUses(nodes);
  const placeOutput = (node: Node, name: string, index: number): void => {
    const out = tensorArg(node, name);
    const last = lastUses.get(out) ?? index;
    const residual = residualInPlace && residualOf(node, name);
    if (residual && lastUses.get(residual) === index) {
      const storage = storageOf.get(residual)!;
      storageOf.set(out, storage);
      lives.get(storage)!.last = last;
      return;
    }
    const rowBytes = out.columns * dtypeBytes[out.dtype];
    const rows = Math.min(maxRows[out.rows], out.rowsAtOnce ?? Infinity);
    const bytes = Math.ceil((rows * rowBytes) / arenaAlignment) * arenaAlignment;
    storageOf.set(out, out);
    lives.set(out, { tensor: out, bytes, first: index, last });
  };
  nodes.forEach((node, index) => {
    for (const name of madeBy(node)) placeOutput(node, name, index);
  });
  return { storageOf, ...place([...lives.values()]) };
}

/**
 * A backend may run the ops from gatherLogitRows on several times in a step, for some of the logit
 * rows each time: what they read from before stays alive to the end. Other ranks read what a
 * collective shows them until this one comes to the next, or to its next step.
 */
function findLastUses(nodes: readonly Node[]): Map<Tensor, number> {
  const tail = nodes.findIndex((node) => node.op === 'gatherLogitRows');
  const born = new Map<Tensor, number>();
  const last = new Map<Tensor, number>();
  nodes.forEach((node, index) => {
    for (const name in node.args) {
      const arg = node.args[name]!;
      if (arg.kind !== 'tensor') continue;
      if (madeBy(node).includes(name)) born.set(arg, index);
      if (readByOthers(node.op).includes(name)) last.set(arg, nextCollective(nodes, index));
      else if (born.get(arg) === index) continue;
      else if (tail >= 0 && index >= tail && born.get(arg)! < tail) last.set(arg, nodes.length);
      else last.set(arg, Math.max(index, last.get(arg) ?? 0));
    }
  });
  nodes.forEach((node, index) => extendOverNeighbours(nodes, node, index, last));
  return last;
}

function nextCollective(nodes: readonly Node[], index: number): number {
  const next = nodes.findIndex(({ op }, i) => i > index && isCollective(op));
  return next < 0 ? nodes.length : next;
}

/**
 * A backend may run a norm, the linear after it and siluAndMul after that in one launch: what goes
 * into the first must not lie where the last one writes.
 */
function extendOverNeighbours(
  nodes: readonly Node[],
  node: Node,
  index: number,
  last: Map<Tensor, number>,
): void {
  if (node.op !== 'linear') return;
  const end = nodes[index + 1]?.op === 'siluAndMul' ? index + 1 : index;
  const x = tensorArg(node, 'x');
  const before = nodes[index - 1];
  const inputs = [x];
  if (before?.op === 'rmsNorm' && tensorArg(before, 'out') === x)
    inputs.push(tensorArg(before, 'x'));
  for (const input of inputs) last.set(input, Math.max(last.get(input)!, end));
}

/** The residual whose place the output may take: that of the sum, where there is one beside it. */
function residualOf(node: Node, output: string): Tensor | null {
  if (!('residual' in node.args) || output !== ('sum' in node.args ? 'sum' : 'out')) return null;
  const residual = tensorArg(node, 'residual');
  const isAlike = tensorArg(node, output).dtype === residual.dtype;
  return isAlike && tensorArg(node, 'x') !== residual ? residual : null;
}

/** Largest first, each at the lowest offset that is free over its whole life. */
function place(lives: readonly Life[]): { offsets: Map<Tensor, number>; bytes: number } {
  const offsets = new Map<Tensor, number>();
  const placed: (Life & { readonly offset: number })[] = [];
  let total = 0;
  for (const life of [...lives].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    const neighbours = placed
      .filter((other) => other.first <= life.last && life.first <= other.last)
      .sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const other of neighbours)
      if (other.offset < offset + life.bytes) offset = Math.max(offset, other.offset + other.bytes);
    placed.push({ ...life, offset });
    offsets.set(life.tensor, offset);
    total = Math.max(total, offset + life.bytes);
  }
  return { offsets, bytes: total };
}
