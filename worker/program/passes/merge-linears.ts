// Linears that share their input become one with their weight rows stacked (q, k, v; gate, up):
// one pass over x, one larger product. Each former output becomes a slice of the merged one.
import type { Node, Tensor, Weight } from '../graph.ts';
import { tensorArg, Uses, weightArg } from '../graph.ts';

export function mergeLinears(nodes: readonly Node[]): Node[] {
  const uses = new Uses(nodes);
  const merged = new Set<Node>();
  const result: Node[] = [];
  for (const node of nodes) {
    if (merged.has(node)) continue;
    const group = node.op === 'linear' ? siblings(node, uses) : [node];
    if (group.length === 1) {
      result.push(node);
      continue;
    }
    for (const sibling of group) merged.add(sibling);
    result.push(...merge(group));
  }
  return result;
}

function siblings(node: Node, uses: Uses): Node[] {
  return uses
    .readersOf(tensorArg(node, 'x'))
    .filter(
      (other) =>
        other.op === 'linear' &&
        tensorArg(other, 'out').dtype === tensorArg(node, 'out').dtype &&
        weightArg(other, 'weight').dtype === weightArg(node, 'weight').dtype &&
        'bias' in other.args === 'bias' in node.args,
    );
}

function merge(group: readonly Node[]): Node[] {
  const first = group[0]!;
  const outs = group.map((node) => tensorArg(node, 'out'));
  const out: Tensor = {
    ...outs[0]!,
    name: outs.map((tensor) => tensor.name).join('+'),
    columns: outs.reduce((sum, tensor) => sum + tensor.columns, 0),
  };
  const x = tensorArg(first, 'x');
  const weight = stack(group.map((node) => weightArg(node, 'weight')));
  const args =
    'bias' in first.args
      ? { out, x, weight, bias: stack(group.map((node) => weightArg(node, 'bias'))) }
      : { out, x, weight };
  let start = 0;
  const slices = outs.map((tensor): Node => {
    const slice: Node = { op: 'slice', args: { out: tensor, x: out }, attrs: { start } };
    start += tensor.columns;
    return slice;
  });
  return [{ op: 'linear', args, attrs: {} }, ...slices];
}

function stack(weights: readonly Weight[]): Weight {
  const numRows = weights.reduce((sum, weight) => sum + weight.shape[0]!, 0);
  return {
    ...weights[0]!,
    name: braces(weights.map((weight) => weight.name)),
    shape: [numRows, ...weights[0]!.shape.slice(1)],
    sources: weights.flatMap((weight) => weight.sources),
  };
}

/** a.q_proj.weight, a.k_proj.weight -> a.{q,k}_proj.weight */
function braces(names: readonly string[]): string {
  const [first = '', ...rest] = names;
  let start = 0;
  while (start < first.length && rest.every((name) => name[start] === first[start])) start++;
  start = first.lastIndexOf('.', start - 1) + 1;
  let end = 0;
  const shortest = Math.min(...names.map((name) => name.length - start));
  while (end < shortest && rest.every((name) => name.at(-1 - end) === first.at(-1 - end))) end++;
  const middles = names.map((name) => name.slice(start, name.length - end));
  return `${first.slice(0, start)}{${middles.join(',')}}${first.slice(first.length - end)}`;
}
