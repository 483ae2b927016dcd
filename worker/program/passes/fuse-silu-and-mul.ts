// mul(silu(gate), up), both slices of one merged linear, becomes siluAndMul. A backend that wants
// gate and up rows of the weight to alternate says in what groups (interleave), and one that makes
// the two of them for a part of a step's rows at a time for how many (rowsAtOnce).
import { tensorArg, Uses, weightArg, type Node, type Tensor } from '../graph.ts';

export function fuseSiluAndMul(
  nodes: readonly Node[],
  interleave: number,
  rowsAtOnce?: number,
): Node[] {
  const uses = new Uses(nodes);
  const fused = new Set<Node>();
  const replacement = new Map<Node, Node>();
  for (const node of nodes) {
    if (node.op !== 'mul') continue;
    const silu = uses.soleProducer(tensorArg(node, 'x'), 'silu');
    const gate = silu && uses.soleProducer(tensorArg(silu, 'x'), 'slice');
    const up = uses.soleProducer(tensorArg(node, 'y'), 'slice');
    if (!silu || !gate || !up) continue;
    const gateUp = tensorArg(gate, 'x');
    const linear = uses.writer(gateUp);
    if (linear?.op !== 'linear' || !areHalves(gateUp, gate, up)) continue;
    for (const part of [gate, silu, up]) fused.add(part);
    const between = rowsAtOnce === undefined ? gateUp : { ...gateUp, rowsAtOnce };
    const maker = interleave > 0 ? interleaved(linear, interleave) : linear;
    replacement.set(linear, { ...maker, args: { ...maker.args, out: between } });
    const out = tensorArg(node, 'out');
    replacement.set(node, { op: 'siluAndMul', args: { out, gateUp: between }, attrs: {} });
  }
  return nodes.flatMap((node) => replacement.get(node) ?? (fused.has(node) ? [] : [node]));
}

function areHalves(gateUp: Tensor, gate: Node, up: Node): boolean {
  return (
    tensorArg(up, 'x') === gateUp &&
    gate.attrs['start'] === 0 &&
    up.attrs['start'] === gateUp.columns / 2
  );
}

function interleaved(linear: Node, interleave: number): Node {
  const args = { ...linear.args, weight: { ...weightArg(linear, 'weight'), interleave } };
  if (!('bias' in linear.args)) return { ...linear, args };
  return { ...linear, args: { ...args, bias: { ...weightArg(linear, 'bias'), interleave } } };
}
