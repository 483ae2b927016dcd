// Tensor parallelism: one rank's part of a recorded model. Every rank holds a range of the columns
// of some tensors: of queries, keys and values by heads, of the gated activation evenly. A linear
// that makes such a tensor has the weight rows of that range; one that reads it has the weight's
// columns, its result is a part of a sum, and an allReduce adds the parts, then bias and residual,
// once. Embedding and logits are split over the vocabulary, in tiles of the sampler. Where there are
// fewer KV heads than ranks, several ranks hold the same one. Every rank gets the same ops with the
// same shapes.
import { shardRoom, tileIds } from '../../../kernels/ops.ts';
import { tensorArg, Uses, weightArg, type Node, type Tensor } from '../graph.ts';
import { columnsOfWeight, rowsOfWeight, type Range } from './shard-weights.ts';

export interface Parallel {
  readonly rank: number;
  readonly numRanks: number;
}

export function shard(nodes: readonly Node[], parallel: Parallel): Node[] {
  return parallel.numRanks === 1 ? [...nodes] : new Sharder(nodes, parallel).run();
}

/** The rank's columns of a tensor: range `start`.. of the whole, as a tensor of its own. */
interface Part {
  readonly tensor: Tensor;
  readonly start: number;
}

/** Ops that work on each column, or each head, by itself. */
const columnwise: ReadonlySet<Node['op']> = new Set(['silu', 'mul', 'headNorm', 'rope']);
class Sharder {
  private readonly nodes: readonly Node[];
  private readonly uses: Uses;
  private readonly parallel: Parallel;
  private readonly parts = new Map<Tensor, Part>();
  private readonly result: Node[] = [];

  constructor(nodes: readonly Node[], parallel: Parallel) {
    this.nodes = nodes;
    this.uses = new Uses(nodes);
    this.parallel = parallel;
  }

  run(): Node[] {
    for (const node of this.nodes) this.add(node);
    return this.result;
  }

  private add(node: Node): void {
    if (node.op === 'embedding') this.embedding(node);
    else if (node.op === 'linear') this.linear(node);
    else if (node.op === 'cachedAttention') this.attention(node);
    else if (!this.readsPart(node)) this.result.push(node);
    else if (columnwise.has(node.op)) this.columnwise(node);
    else if (node.op === 'sample') this.sample(node);
    else throw new Error(`${node.op} of a tensor that is split over ranks is not built`);
  }

  private embedding(node: Node): void {
    const weight = weightArg(node, 'weight');
    const rows = this.vocabulary(weight.shape[0]!);
    const x = partOf(tensorArg(node, 'out'), weight.shape[1]!, 'f32');
    const attrs = { firstId: rows.start };
    this.result.push({
      op: 'embedding',
      args: { out: x, weight: rowsOfWeight(weight, rows) },
      attrs,
    });
    this.result.push({ op: 'allReduce', args: { out: tensorArg(node, 'out'), x }, attrs: {} });
  }

  private linear(node: Node): void {
    const out = tensorArg(node, 'out');
    const input = this.parts.get(tensorArg(node, 'x'));
    if (input) {
      this.rowParallel(node, input);
      return;
    }
    if (this.uses.readersOf(out).some(({ op }) => op === 'sample')) {
      this.logits(node);
      return;
    }
    const range = this.rangeOf(out);
    if (!range) {
      this.result.push(node);
      return;
    }
    const tensor = partOf(out, range.count, out.dtype);
    this.parts.set(out, { tensor, start: range.start });
    const weight = rowsOfWeight(weightArg(node, 'weight'), range);
    const args = { out: tensor, x: tensorArg(node, 'x'), weight };
    const withBias =
      'bias' in node.args ? { ...args, bias: rowsOfWeight(weightArg(node, 'bias'), range) } : args;
    this.result.push({ ...node, args: withBias });
  }

  /** The rank's addend of the product; the bias is added once, after the sum. */
  private rowParallel(node: Node, { tensor, start }: Part): void {
    const out = tensorArg(node, 'out');
    const x = partOf(out, out.columns, 'f32');
    const weight = columnsOfWeight(weightArg(node, 'weight'), { start, count: tensor.columns });
    this.result.push({ op: 'linear', args: { out: x, x: tensor, weight }, attrs: node.attrs });
    const args = 'bias' in node.args ? { out, x, bias: weightArg(node, 'bias') } : { out, x };
    this.result.push({ op: 'allReduce', args, attrs: {} });
  }

  private logits(node: Node): void {
    const out = tensorArg(node, 'out');
    const rows = this.vocabulary(out.columns);
    const x = partOf(out, rows.count, out.dtype);
    const weight = rowsOfWeight(weightArg(node, 'weight'), rows);
    this.result.push({ ...node, args: { ...node.args, out: x, weight } });
    this.parts.set(out, { tensor: x, start: rows.start });
  }

  private sample(node: Node): void {
    const { tensor: x, start } = this.parts.get(tensorArg(node, 'logits'))!;
    const out = { ...x, name: `${x.name}.told`, columns: shardRoom(x.columns) };
    this.result.push({ op: 'sampleSharded', args: { out, x }, attrs: { firstId: start } });
  }

  private attention(node: Node): void {
    const part = (name: string): Part => {
      const found = this.parts.get(tensorArg(node, name));
      if (!found) throw new Error(`attention over ranks: ${name} comes from no linear`);
      return found;
    };
    const [q, k, v] = [part('q'), part('k'), part('v')];
    const out = tensorArg(node, 'out');
    const tensor = partOf(out, q.tensor.columns, out.dtype);
    this.parts.set(out, { tensor, start: q.start });
    const { headDim } = node.attrs as { headDim: number };
    this.result.push({
      op: node.op,
      args: { out: tensor, q: q.tensor, k: k.tensor, v: v.tensor },
      attrs: {
        ...node.attrs,
        numHeads: q.tensor.columns / headDim,
        numKvHeads: k.tensor.columns / headDim,
      },
    });
  }

  private columnwise(node: Node): void {
    const args = Object.entries(node.args).map(([name, arg]) => {
      const part = arg.kind === 'tensor' ? this.parts.get(arg) : undefined;
      return [name, part?.tensor ?? arg] as const;
    });
    const out = tensorArg(node, 'out');
    const input = this.parts.get(tensorArg(node, 'x'));
    const other = node.op === 'mul' ? this.parts.get(tensorArg(node, 'y')) : input;
    if (!input || other?.start !== input.start || other.tensor.columns !== input.tensor.columns)
      throw new Error(`${node.op}: its operands are not split alike`);
    const tensor = partOf(out, input.tensor.columns, out.dtype);
    this.parts.set(out, { tensor, start: input.start });
    this.result.push({ ...node, args: { ...Object.fromEntries(args), out: tensor } });
  }

  private readsPart({ args }: Node): boolean {
    return Object.values(args).some((arg) => arg.kind === 'tensor' && this.parts.has(arg));
  }

  /** The rank's columns of a tensor, by what it is read for; null = all of them. */
  private rangeOf(tensor: Tensor): Range | null {
    const ranges = this.uses.readersOf(tensor).map((reader): Range | null => {
      if (columnwise.has(reader.op)) return this.rangeOf(tensorArg(reader, 'out'));
      if (reader.op === 'cachedAttention') return this.heads(reader, tensor);
      return reader.op === 'linear' ? this.share(tensor.columns) : null;
    });
    const first = ranges[0] ?? null;
    const isCommon = ranges.every(
      (range) => range?.start === first?.start && range?.count === first?.count,
    );
    return isCommon ? first : null;
  }

  private heads({ args, attrs }: Node, tensor: Tensor): Range {
    const { headDim, numHeads, numKvHeads } = attrs as Record<string, number>;
    const { rank, numRanks } = this.parallel;
    const { start, count } =
      tensor === args['q']
        ? this.share(numHeads!)
        : numKvHeads! < numRanks
          ? { start: Math.floor((rank * numKvHeads!) / numRanks), count: 1 }
          : this.share(numKvHeads!);
    return { start: start * headDim!, count: count * headDim! };
  }

  private share(total: number): Range {
    const { rank, numRanks } = this.parallel;
    if (total % numRanks !== 0) throw new Error(`${total} columns do not divide by ${numRanks}`);
    return { start: (rank * total) / numRanks, count: total / numRanks };
  }

  /** As many ids on every rank, in whole tiles; the last may have some, or all, beyond the end. */
  private vocabulary(size: number): Range {
    const { rank, numRanks } = this.parallel;
    const count = Math.ceil(size / numRanks / tileIds) * tileIds;
    return { start: rank * count, count };
  }
}

function partOf(whole: Tensor, columns: number, dtype: Tensor['dtype']): Tensor {
  return { ...whole, name: `${whole.name}.part`, columns, dtype };
}
