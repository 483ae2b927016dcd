// Records a model: each method appends a node and returns the tensor that it makes. Models and
// layers see only this. Shapes follow from arguments; a wrong one is an error at once.
import type { Dtype, SymbolicSize } from '../../kernels/program.ts';
import type { Args, Node, Tensor, Weight } from './graph.ts';

export interface HeadShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

export interface RecorderOptions {
  /** dtype of activations. */
  readonly actDtype: Dtype;
  /** dtype that checkpoint weights are kept in. */
  readonly weightDtype: Dtype;
}

export class Recorder {
  readonly nodes: Node[] = [];
  private readonly weights = new Map<string, Weight>();
  private readonly options: RecorderOptions;
  private numTensors = 0;

  constructor(options: RecorderOptions) {
    this.options = options;
  }

  /** A whole checkpoint tensor; the same name is the same weight. */
  weight(name: string, ...shape: number[]): Weight {
    const known = this.weights.get(name);
    if (known) return known;
    const [numRows = 0, numColumns = 1] = shape;
    const sources = [
      { tensor: name, tensorShape: shape, rowStart: 0, numRows, columnStart: 0, numColumns },
    ];
    const dtype = this.options.weightDtype;
    return this.keep({
      kind: 'weight',
      name,
      dtype,
      shape,
      sources,
      constant: null,
      interleave: 0,
    });
  }

  /** Numbers that are computed and not loaded. */
  constant(name: string, values: Float32Array): Weight {
    const shape = [values.length];
    return this.keep({
      kind: 'weight',
      name,
      dtype: 'f32',
      shape,
      sources: [],
      constant: values,
      interleave: 0,
    });
  }

  embedding(weight: Weight): Tensor {
    const out = this.act('numTokens', weight.shape[1]!);
    return this.node('embedding', { weight }, out, { firstId: 0 });
  }

  /** x: [M, H], weight: [H] */
  rmsNorm(x: Tensor, weight: Weight, eps: number): Tensor {
    return this.node('rmsNorm', { x, weight }, this.act(x.rows, x.columns), { eps });
  }

  /** x: [M, K], weight: [N, K], bias: [N] */
  linear(x: Tensor, weight: Weight, bias: Weight | null = null): Tensor {
    const out = this.act(x.rows, weight.shape[0]!);
    return this.node('linear', bias ? { x, weight, bias } : { x, weight }, out);
  }

  /** A linear whose result is kept in f32. */
  logits(x: Tensor, weight: Weight): Tensor {
    const out = this.tensor(x.rows, weight.shape[0]!, 'f32');
    return this.node('linear', { x, weight }, out);
  }

  add(x: Tensor, y: Tensor): Tensor {
    return this.node('add', { x, y }, this.act(x.rows, x.columns));
  }

  mul(x: Tensor, y: Tensor): Tensor {
    return this.node('mul', { x, y }, this.act(x.rows, x.columns));
  }

  silu(x: Tensor): Tensor {
    return this.node('silu', { x }, this.act(x.rows, x.columns));
  }

  /** x: [T, heads * headDim], weight: [headDim] */
  headNorm(x: Tensor, weight: Weight, eps: number): Tensor {
    return this.node('headNorm', { x, weight }, this.act(x.rows, x.columns), { eps });
  }

  /** invFreq: [headDim / 2] -> [T, headDim], cosines then sines */
  ropeCosSin(invFreq: Weight, factor: number): Tensor {
    const out = this.tensor('numTokens', invFreq.shape[0]! * 2, 'f32');
    return this.node('ropeCosSin', { invFreq }, out, { factor });
  }

  /** x: [T, heads * headDim] */
  rope(x: Tensor, cosSin: Tensor): Tensor {
    return this.node('rope', { x, cosSin }, this.act(x.rows, x.columns));
  }

  /** q: [T, Q * D], k and v: [T, G * D] -> [T, Q * D]; window 0 is full attention */
  cachedAttention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attrs: HeadShape & { readonly layer: number; readonly scale: number; readonly window: number },
  ): Tensor {
    return this.node('cachedAttention', { q, k, v }, this.act(q.rows, q.columns), { ...attrs });
  }

  /** The rows of x [T, H] whose logits the step needs: [L, H] */
  gatherLogitRows(x: Tensor): Tensor {
    return this.node('gatherLogitRows', { x }, this.act('numLogits', x.columns));
  }

  sample(logits: Tensor): void {
    this.nodes.push({ op: 'sample', args: { logits }, attrs: {} });
  }

  private node(op: Node['op'], args: Args, out: Tensor, attrs: Node['attrs'] = {}): Tensor {
    this.nodes.push({ op, args: { out, ...args }, attrs });
    return out;
  }

  private act(rows: SymbolicSize, columns: number): Tensor {
    return this.tensor(rows, columns, this.options.actDtype);
  }

  private tensor(rows: SymbolicSize, columns: number, dtype: Dtype): Tensor {
    return { kind: 'tensor', name: `t${this.numTensors++}`, rows, columns, dtype };
  }

  private keep(weight: Weight): Weight {
    this.weights.set(weight.name, weight);
    return weight;
  }
}
