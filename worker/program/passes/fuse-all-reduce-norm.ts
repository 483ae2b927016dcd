// allReduce, perhaps with a residual, and the rmsNorm of its sum become allReduceResidualNorm: both
// read the sum while it is at hand, and ranks have one op less to launch for each of them.
import { tensorArg, Uses, weightArg, type Node } from '../graph.ts';

export function fuseAllReduceNorm(nodes: readonly Node[]): Node[] {
  const uses = new Uses(nodes);
  const fused = new Set<Node>();
  const replacement = new Map<Node, Node>();
  for (const node of nodes) {
    if (node.op !== 'rmsNorm') continue;
    const reduce = uses.writer(tensorArg(node, 'x'));
    // One norm for each sum; another one of the same sum stays as it is.
    if (reduce?.op !== 'allReduce' || replacement.has(reduce)) continue;
    fused.add(node);
    const { out: sum, ...inputs } = reduce.args;
    const args = { out: tensorArg(node, 'out'), sum: sum!, ...inputs };
    const weight = weightArg(node, 'weight');
    replacement.set(reduce, {
      op: 'allReduceResidualNorm',
      args: { ...args, weight },
      attrs: node.attrs,
    });
  }
  return nodes.flatMap((node) => replacement.get(node) ?? (fused.has(node) ? [] : [node]));
}
