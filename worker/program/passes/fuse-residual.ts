// add(h, linear(x)) becomes a linear with a residual: added in f32 before the one rounding.
import { tensorArg, Uses, type Node } from '../graph.ts';

export function fuseResidual(nodes: readonly Node[]): Node[] {
  const uses = new Uses(nodes);
  const fused = new Set<Node>();
  const replacement = new Map<Node, Node>();
  for (const node of nodes) {
    if (node.op !== 'add') continue;
    const linear = uses.soleProducer(tensorArg(node, 'y'), 'linear');
    if (!linear || 'residual' in linear.args) continue;
    fused.add(linear);
    const args = { ...linear.args, out: tensorArg(node, 'out'), residual: tensorArg(node, 'x') };
    replacement.set(node, { op: 'linear', args, attrs: linear.attrs });
  }
  return nodes.flatMap((node) => replacement.get(node) ?? (fused.has(node) ? [] : [node]));
}
