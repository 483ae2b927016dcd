// Tensor parallelism: one rank's part of a recorded model. Every rank holds some columns of some
// tensors: of queries, keys and values by heads, of the gated activation evenly, in whole groups of
// 16. A linear that makes such a tensor has the weight rows of those columns; one that reads it has
// the weight's columns, its result is a part of a sum, and an allReduce adds the parts, then bias
// and residual, once. Embedding and logits are split over the vocabulary, in tiles of the sampler.
// What a rank has beyond the end of a tensor is zeros, and stays zero: it adds nothing. Every rank
// gets the same ops with the same shapes.
import { kvHeadsOfRank, whyNotSplit, type Parallel } from '../../../common/tensor-parallel.ts';
import { shardRoom, tileIds } from '../../../kernels/ops.ts';
import { tensorArg, Uses, weightArg, type Node, type Tensor } from '../graph.ts';
import { columnsOfWeight, rowsOfWeight, type Range } from './shard-weights.ts';

export function shard(nodes: readonly Node[], parallel: Parallel): Node[] {
  return parallel.numRanks === 1 ? [...nodes] : new Sharder(nodes, parallel).run();
}

/** The rank's columns of a tensor: ranges of the whole, as a tensor of their own. */
interface Part {
  readonly tensor: Tensor;
  readonly ranges: readonly Range[];
}

/** Products on GPUs go by so many columns. */
const columnGroup = 16;

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
    const rows = this.share(weight.shape[0]!, tileIds);
    const x = partOf(tensorArg(node, 'out'), weight.shape[1]!, 'f32');
    const attrs = { firstId: rows.start };
    this.result.push({
      op: 'embedding',
      args: { out: x, weight: rowsOfWeight(weight, [rows]) },
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
    const ranges = this.rangesOf(out);
    if (!ranges) {
      this.result.push(node);
      return;
    }
    const columns = ranges.reduce((sum, { count }) => sum + count, 0);
    const tensor = partOf(out, columns, out.dtype);
    this.parts.set(out, { tensor, ranges });
    const weight = rowsOfWeight(weightArg(node, 'weight'), ranges);
    const args = { out: tensor, x: tensorArg(node, 'x'), weight };
    const withBias =
      'bias' in node.args ? { ...args, bias: rowsOfWeight(weightArg(node, 'bias'), ranges) } : args;
    this.result.push({ ...node, args: withBias });
  }

  /** The rank's addend of the product; the bias is added once, after the sum. */
  private rowParallel(node: Node, { tensor, ranges }: Part): void {
    const [range, ...others] = ranges;
    if (!range || others.length > 0) throw new Error(`${tensor.name} is no one range`);
    const out = tensorArg(node, 'out');
    const x = partOf(out, out.columns, 'f32');
    const weight = columnsOfWeight(weightArg(node, 'weight'), range);
    this.result.push({ op: 'linear', args: { out: x, x: tensor, weight }, attrs: node.attrs });
    const args = 'bias' in node.args ? { out, x, bias: weightArg(node, 'bias') } : { out, x };
    this.result.push({ op: 'allReduce', args, attrs: {} });
  }

  private logits(node: Node): void {
    const out = tensorArg(node, 'out');
    const rows = this.share(out.columns, tileIds);
    const x = partOf(out, rows.count, out.dtype);
    const weight = rowsOfWeight(weightArg(node, 'weight'), [rows]);
    this.result.push({ ...node, args: { ...node.args, out: x, weight } });
    this.parts.set(out, { tensor: x, ranges: [rows] });
  }

  private sample(node: Node): void {
    const { tensor: x, ranges } = this.parts.get(tensorArg(node, 'logits'))!;
    const out = { ...x, name: `${x.name}.told`, columns: shardRoom(x.columns) };
    const attrs = { firstId: ranges[0]!.start };
    this.result.push({ op: 'sampleSharded', args: { out, x }, attrs });
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
    this.parts.set(out, { tensor, ranges: q.ranges });
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
    if (!input || !areSame(other?.ranges, input.ranges))
      throw new Error(`${node.op}: its operands are not split alike`);
    const tensor = partOf(out, input.tensor.columns, out.dtype);
    this.parts.set(out, { tensor, ranges: input.ranges });
    this.result.push({ ...node, args: { ...Object.fromEntries(args), out: tensor } });
  }

  private readsPart({ args }: Node): boolean {
    return Object.values(args).some((arg) => arg.kind === 'tensor' && this.parts.has(arg));
  }

  /** The rank's columns of a tensor, by what it is read for; null = all of them. */
  private rangesOf(tensor: Tensor): readonly Range[] | null {
    const readers = this.uses.readersOf(tensor).map((reader): readonly Range[] | null => {
      if (columnwise.has(reader.op)) return this.rangesOf(tensorArg(reader, 'out'));
      if (reader.op === 'cachedAttention') return this.heads(reader, tensor);
      return reader.op === 'linear' ? [this.share(tensor.columns, columnGroup)] : null;
    });
    const first = readers[0] ?? null;
    return first && readers.every((ranges) => areSame(ranges, first)) ? first : null;
  }

  private heads({ args, attrs }: Node, tensor: Tensor): Range[] {
    const { headDim, ...heads } = attrs as {
      headDim: number;
      numHeads: number;
      numKvHeads: number;
    };
    const { rank, numRanks } = this.parallel;
    const why = whyNotSplit(heads, numRanks);
    if (why !== null) throw new Error(why);
    const ofRank = heads.numHeads / numRanks;
    const ranges =
      tensor === args['q']
        ? [{ start: rank * ofRank, count: ofRank }]
        : inRanges(kvHeadsOfRank(heads, this.parallel));
    return ranges.map(({ start, count }) => ({ start: start * headDim, count: count * headDim }));
  }

  /** As many groups on every rank; the last ranks may have some, or all, beyond the end. */
  private share(total: number, group: number): Range {
    const { rank, numRanks } = this.parallel;
    const count = Math.ceil(total / numRanks / group) * group;
    return { start: rank * count, count };
  }
}

/** Numbers in their order; those that follow each other are one range. */
function inRanges(numbers: readonly number[]): Range[] {
  const ranges: Range[] = [];
  for (const number of numbers) {
    const last = ranges.at(-1);
    if (last && last.start + last.count === number)
      ranges[ranges.length - 1] = { ...last, count: last.count + 1 };
    else ranges.push({ start: number, count: 1 });
  }
  return ranges;
}

function areSame(a: readonly Range[] | null | undefined, b: readonly Range[]): boolean {
  return (
    a?.length === b.length &&
    a.every(({ start, count }, i) => start === b[i]!.start && count === b[i]!.count)
  );
}

function partOf(whole: Tensor, columns: number, dtype: Tensor['dtype']): Tensor {
  return { ...whole, name: `${whole.name}.part`, columns, dtype };
}
