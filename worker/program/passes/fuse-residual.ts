// add(h, linear(x)) becomes a linear with a residual: added in f32 before the one rounding. Where
// ranks add up their parts of linear(x), the allReduce takes it.
import { tensorArg, Uses, type Node } from '../graph.ts';

export function fuseResidual(nodes: readonly Node[]): Node[] {
  const uses = new Uses(nodes);
  const fused = new Set<Node>();
  const replacement = new Map<Node, Node>();
  for (const node of nodes) {
    if (node.op !== 'add') continue;
    const y = tensorArg(node, 'y');
    const producer = uses.soleProducer(y, 'linear') ?? uses.soleProducer(y, 'allReduce');
    if (!producer || 'residual' in producer.args) continue;
    fused.add(producer);
    const args = { ...producer.args, out: tensorArg(node, 'out'), residual: tensorArg(node, 'x') };
    replacement.set(node, { ...producer, args });
  }
  return nodes.flatMap((node) => replacement.get(node) ?? (fused.has(node) ? [] : [node]));
}
