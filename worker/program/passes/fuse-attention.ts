// rope(q), rope(k), v -> cachedAttention, all slices of one merged linear, become headRmsNorm (if
// the heads are normed), ropeAndCache and attention on the merged tensor, in place.
import { tensorArg, Uses, weightArg, type Node, type Tensor, type Weight } from '../graph.ts';

export function fuseAttention(nodes: readonly Node[]): Node[] {
  const uses = new Uses(nodes);
  const fused = new Set<Node>();
  const replacement = new Map<Node, Node[]>();
  for (const node of nodes) {
    if (node.op !== 'cachedAttention') continue;
    const q = head(uses, tensorArg(node, 'q'));
    const k = head(uses, tensorArg(node, 'k'));
    const v = uses.soleProducer(tensorArg(node, 'v'), 'slice');
    const qkv = q && tensorArg(q.slice, 'x');
    if (!q || !k || !v || !qkv || !areQkv(qkv, [q.slice, k.slice, v], node)) continue;
    if ((q.norm === null) !== (k.norm === null)) continue;
    for (const part of [...q.nodes, ...k.nodes, v]) fused.add(part);
    replacement.set(node, lower(node, qkv, q, k));
  }
  return nodes.flatMap((node) => replacement.get(node) ?? (fused.has(node) ? [] : [node]));
}

interface Head {
  readonly slice: Node;
  readonly norm: Node | null;
  readonly rope: Node;
  readonly nodes: readonly Node[];
}

/** slice, perhaps headNorm, rope: each for the next alone. */
function head(uses: Uses, tensor: Tensor): Head | null {
  const rope = uses.soleProducer(tensor, 'rope');
  if (!rope) return null;
  const norm = uses.soleProducer(tensorArg(rope, 'x'), 'headNorm') ?? null;
  const slice = uses.soleProducer(tensorArg(norm ?? rope, 'x'), 'slice');
  if (!slice) return null;
  return { slice, norm, rope, nodes: norm ? [slice, norm, rope] : [slice, rope] };
}

/** q, k and v are the three parts of qkv, in this order. */
function areQkv(qkv: Tensor, slices: readonly Node[], { attrs }: Node): boolean {
  const queries = attrs['numHeads']! * attrs['headDim']!;
  const keys = attrs['numKvHeads']! * attrs['headDim']!;
  const starts = [0, queries, queries + keys];
  return (
    qkv.columns === queries + 2 * keys &&
    slices.every((slice, i) => tensorArg(slice, 'x') === qkv && slice.attrs['start'] === starts[i])
  );
}

function lower(node: Node, qkv: Tensor, q: Head, k: Head): Node[] {
  const { layer, numHeads, numKvHeads, headDim } = node.attrs as Record<string, number>;
  const heads = { numHeads: numHeads!, numKvHeads: numKvHeads!, headDim: headDim! };
  const result: Node[] = [];
  if (q.norm && k.norm) {
    const weight = (of: Node): Weight => weightArg(of, 'weight');
    result.push({
      op: 'headRmsNorm',
      args: { qkv, qWeight: weight(q.norm), kWeight: weight(k.norm) },
      attrs: { ...heads, eps: q.norm.attrs['eps']! },
    });
  }
  const cosSin = tensorArg(q.rope, 'cosSin');
  result.push({ op: 'ropeAndCache', args: { qkv, cosSin }, attrs: { layer: layer!, ...heads } });
  const out = tensorArg(node, 'out');
  result.push({ op: 'attention', args: { out, qkv }, attrs: node.attrs });
  return result;
}
