// The sharding pass: the parts of all ranks are the model, whatever its shape; and what cannot be
// split is refused.
import t from 'tap';
import { kvHeadsOfRank, whyNotSplit } from '../../common/tensor-parallel.ts';
import type { Op, Program, WeightSource } from '../../kernels/program.ts';
import { widen } from '../../kernels/reference/float-formats.ts';
import { prepareWeight } from '../../kernels/reference/bind.ts';
import { isCollective, type Tensor } from '../../worker/program/graph.ts';
import { buildProgram, type BuildOptions } from '../../worker/program/build.ts';
import { checkProgram } from '../../worker/program/check.ts';
import { fuseAllReduceNorm } from '../../worker/program/passes/fuse-all-reduce-norm.ts';
import { shard } from '../../worker/program/passes/shard.ts';
import { printProgram } from '../../worker/program/print.ts';
import { Recorder } from '../../worker/program/recorder.ts';
import { Checkpoint } from '../../worker/weights/checkpoint.ts';
import { dummyWeights } from '../../worker/weights/dummy-weights.ts';
import { loadWeights } from '../../worker/weights/load-weights.ts';
import { Random } from '../engine/random.ts';
import { demo, options } from './demo-layer.ts';

type Config = typeof demo;

const programsOf = (config: Config, numRanks: number, more: Partial<BuildOptions> = {}) =>
  Array.from({ length: numRanks }, (_, rank) =>
    buildProgram(config, { ...options, ...more, parallel: { rank, numRanks } }),
  );

t.test('a Llama layer over two ranks', (t) => {
  const layer = 'model.layers.0';
  t.equal(
    printProgram(programsOf(demo, 2)[1]!),
    `%0[numTokens,64] f32 = ropeCosSin(invFreq=rotary.invFreq[32] f32, factor=1)
%1[numTokens,256] f32 = embedding(weight=model.embed_tokens.weight[4096,256] bf16, firstId=4096)
%2[numTokens,256] f32 = allReduceResidualNorm(sum=%3, x=%1, weight=${layer}.input_layernorm.weight[256] bf16, eps=0.00001)
%4[numTokens,256] f32 = linear(x=%2, weight=${layer}.self_attn.{q,k,v}_proj.weight[256,256] bf16)
ropeAndCache(qkv=%4, cosSin=%0, layer=0, numHeads=2, numKvHeads=1, headDim=64)
%5[numTokens,128] f32 = attention(qkv=%4, layer=0, numHeads=2, numKvHeads=1, headDim=64, scale=0.125, window=0)
%6[numTokens,256] f32 = linear(x=%5, weight=${layer}.self_attn.o_proj.weight[256,128] bf16)
%7[numTokens,256] f32 = allReduceResidualNorm(sum=%3, x=%6, residual=%3, weight=${layer}.post_attention_layernorm.weight[256] bf16, eps=0.00001)
%8[numTokens,704] f32 = linear(x=%7, weight=${layer}.mlp.{gate,up}_proj.weight[704,256] bf16)
%9[numTokens,352] f32 = siluAndMul(gateUp=%8)
%10[numTokens,256] f32 = linear(x=%9, weight=${layer}.mlp.down_proj.weight[256,352] bf16)
%3[numTokens,256] f32 = allReduce(x=%10, residual=%3)
%11[numLogits,256] f32 = gatherLogitRows(x=%3)
%12[numLogits,256] f32 = rmsNorm(x=%11, weight=model.norm.weight[256] bf16, eps=0.00001)
%13[numLogits,4096] f32 = linear(x=%12, weight=model.embed_tokens.weight[4096,256] bf16)
%14[numLogits,520] f32 = sampleSharded(x=%13, firstId=4096)
`,
  );
  t.end();
});

t.test('one rank has the program that there was before', (t) => {
  t.same(programsOf(demo, 1)[0], buildProgram(demo, options));
  t.end();
});

/** Shapes that differ in everything that the pass looks at. */
function randomConfig(seed: number): { config: Config; numRanks: number } {
  const random = new Random(seed);
  const pick = <T>(list: readonly T[]): T => list[random.int(0, list.length - 1)]!;
  const numRanks = pick([2, 3, 4, 6, 8]);
  const numKvHeads = pick([1, 2, 3, 4, 8, 12]);
  const config: Config = {
    ...demo,
    architecture: pick(['LlamaForCausalLM', 'Qwen3ForCausalLM']),
    numLayers: 2,
    hiddenSize: pick([32, 48]),
    numHeads: numKvHeads * pick([1, 2, 3, 4]),
    numKvHeads,
    headDim: 16,
    intermediateSize: pick([48, 64, 72, 100]),
    vocabSize: pick([64, 100, 257]),
    tieWordEmbeddings: random.next() < 0.5,
    attentionBias: random.next() < 0.5,
    mlpBias: random.next() < 0.5,
  };
  return { config, numRanks };
}

/** How often each element of each checkpoint tensor is in a program's weights. */
function coverage(programs: readonly Program[]): Map<string, number[]> {
  const counts = new Map<string, number[]>();
  const cover = (source: WeightSource) => {
    const { tensor, tensorShape, rowStart, numRows, columnStart, numColumns } = source;
    const [rows = 0, columns = 1] = tensorShape;
    const count = counts.get(tensor) ?? new Array<number>(rows * columns).fill(0);
    counts.set(tensor, count);
    for (let row = rowStart; row < Math.min(rowStart + numRows, rows); row++)
      for (let column = columnStart; column < Math.min(columnStart + numColumns, columns); column++)
        count[row * columns + column]!++;
  };
  for (const { weights } of programs) for (const { sources } of weights) sources.forEach(cover);
  return counts;
}

t.test('together the ranks have every element, and only what they must twice', (t) => {
  let numSplit = 0;
  for (let seed = 0; seed < 60; seed++) {
    const { config, numRanks } = randomConfig(seed);
    if (whyNotSplit(config, numRanks) !== null) continue;
    numSplit++;
    const whole = coverage([buildProgram(config, options)]);
    const parts = coverage(programsOf(config, numRanks));
    t.same([...parts.keys()].sort(), [...whole.keys()].sort());
    const kvCopies = new Array<number>(config.numKvHeads).fill(0);
    for (let rank = 0; rank < numRanks; rank++)
      for (const head of kvHeadsOfRank(config, { rank, numRanks })) kvCopies[head]!++;
    for (const [tensor, counts] of parts) {
      const isOfAll = /norm|o_proj.bias|down_proj.bias/.test(tensor);
      const isKv = /[kv]_proj/.test(tensor);
      const expected = (i: number) =>
        isOfAll
          ? numRanks
          : isKv
            ? kvCopies[Math.floor((i / counts.length) * kvCopies.length)]!
            : 1;
      const wrong = counts.findIndex((count, i) => count !== expected(i) * whole.get(tensor)![i]!);
      t.equal(wrong, -1, `seed ${seed}: ${tensor}[${wrong}] ${counts[wrong]} times`);
    }
  }
  t.ok(numSplit > 10, `${numSplit} of them can be split`);
  t.end();
});

t.test('ranks run the same ops on buffers at the same places', (t) => {
  for (const numRanks of [2, 4]) {
    const programs = programsOf({ ...demo, attentionBias: true, vocabSize: 8200 }, numRanks);
    const common = ({ ops, buffers, weights, ...rest }: Program) => ({
      ops: ops.map(({ attrs, ...op }): Omit<Op, 'attrs'> & { attrs: object } => ({
        ...op,
        attrs: { ...attrs, firstId: 0 },
      })),
      buffers,
      weights: weights.map(({ shape, dtype }) => ({ shape, dtype })),
      ...rest,
    });
    for (const program of programs) t.same(common(program), common(programs[0]!));
    t.equal(programs[1]!.kvGroups[0]!.numKvHeads, 1, 'KV heads are split, or copied');
  }
  t.end();
});

t.test('a bias after the reduction is added once', (t) => {
  const program = programsOf({ ...demo, attentionBias: true, mlpBias: true }, 2)[0]!;
  const biased = program.ops.filter(({ op, args }) => isCollective(op) && 'bias' in args);
  t.equal(biased.length, 2);
  const rowParallel = program.ops.filter(
    ({ op }, i) => op === 'linear' && program.ops[i + 1]?.op.startsWith('allReduce'),
  );
  t.equal(rowParallel.length, 2);
  t.notOk(rowParallel.some(({ args }) => 'bias' in args || 'residual' in args));
  t.end();
});

t.test('parts of a checkpoint have the values of their range', (t) => {
  const checkpoint = Checkpoint.open('models/demo');
  const numRanks = 4;
  // Ids that no rank has by itself: the last rank's part ends in rows that are not there.
  const programs = programsOf(demo, numRanks);
  const valuesOf = (program: Program, name: string) => {
    const i = program.weights.findIndex((weight) => weight.name.includes(name));
    const spec = program.weights[i]!;
    return { spec, values: prepareWeight(spec, loadWeights(program, checkpoint)[i]!) };
  };
  const down = checkpoint.get('model.layers.0.mlp.down_proj.weight');
  const wholeDown = widen('bf16', down.data);
  const embedding = widen('bf16', checkpoint.get('model.embed_tokens.weight').data);
  programs.forEach((program, rank) => {
    const { spec, values } = valuesOf(program, 'down_proj');
    t.same(spec.shape, [256, 176]);
    for (const [row, column] of [
      [0, 0],
      [1, 175],
      [255, 3],
    ] as const)
      t.equal(values[row * 176 + column], wholeDown[row * 704 + rank * 176 + column]);
    const rows = valuesOf(program, 'embed_tokens').values;
    t.same(rows, embedding.subarray(rank * 2048 * 256, (rank + 1) * 2048 * 256));
  });
  t.end();
});

t.test('rows beyond the vocabulary are zeros', (t) => {
  const program = programsOf(demo, 2)[1]!;
  const i = program.weights.findIndex(({ name }) => name.includes('embed_tokens'));
  const weight = program.weights[i]!;
  const sources = [{ ...weight.sources[0]!, rowStart: 8190, numRows: 4 }];
  const changed = { ...program, weights: [{ ...weight, shape: [4, 256], sources }] };
  const parts = loadWeights(changed, Checkpoint.open('models/demo'))[0]!;
  t.same(
    parts.map(({ numRows }) => numRows),
    [2, 2],
  );
  const values = prepareWeight({ ...weight, shape: [4, 256] }, parts);
  t.ok(values.subarray(0, 512).every((value) => value !== 0));
  t.ok(values.subarray(512).every((value) => value === 0));
  t.end();
});

t.test('columns beyond the intermediate size are zeros, on the last ranks alone', (t) => {
  // 88 columns each would be no whole groups of 16.
  const config = { ...demo, numHeads: 8, numKvHeads: 4, headDim: 32 };
  const checkpoint = Checkpoint.open('models/demo');
  const down = checkpoint.get('model.layers.0.mlp.down_proj.weight');
  const whole = widen('bf16', down.data);
  programsOf(config, 8).forEach((program, rank) => {
    const i = program.weights.findIndex(({ name }) => name.includes('down_proj'));
    const spec = program.weights[i]!;
    t.same(spec.shape, [256, 96]);
    const values = prepareWeight(spec, loadWeights(program, checkpoint)[i]!);
    const expected = values.map((_, at) => {
      const column = rank * 96 + (at % 96);
      return column < 704 ? whole[Math.floor(at / 96) * 704 + column]! : 0;
    });
    t.same(values, expected, `rank ${rank}`);
  });
  t.end();
});

t.test('dummy weights are one model, over however many ranks', (t) => {
  const config = { ...demo, vocabSize: 100, numLayers: 1 };
  const whole = buildProgram(config, options);
  const find = (program: Program, name: string) => {
    const i = program.weights.findIndex((weight) => weight.name.includes(name));
    return prepareWeight(program.weights[i]!, dummyWeights(program, 5)[i]!);
  };
  const parts = programsOf(config, 2).map((program) => find(program, 'down_proj'));
  const all = find(whole, 'down_proj');
  for (const [row, column] of [
    [0, 0],
    [7, 351],
    [7, 352],
    [255, 703],
  ] as const) {
    const rank = Math.floor(column / 352);
    t.equal(parts[rank]![row * 352 + (column % 352)], all[row * 704 + column]);
  }
  const rows = programsOf(config, 2).map((program) => find(program, 'embed_tokens'));
  t.same([...rows[0]!, ...rows[1]!].slice(0, 25600), [...find(whole, 'embed_tokens')]);
  t.end();
});

t.test('only numbers of ranks that do not divide the attention heads are refused', (t) => {
  for (const numRanks of [1, 2, 3, 4, 6, 12])
    t.equal(whyNotSplit({ numHeads: 12 }, numRanks), null);
  t.match(whyNotSplit({ numHeads: 12 }, 5), /12 attention heads do not divide by 5/);
  t.throws(() => programsOf(demo, 3), /4 attention heads do not divide by 3/);
  t.end();
});

t.test('every query head of a rank has its own KV head of the model', (t) => {
  for (const [numKvHeads, ofEach] of [
    [4, 3],
    [2, 2],
    [3, 4],
    [1, 12],
    [12, 1],
    [2, 15],
  ] as const) {
    const numHeads = numKvHeads * ofEach;
    for (let numRanks = 1; numRanks <= numHeads; numRanks++) {
      if (whyNotSplit({ numHeads }, numRanks) !== null) continue;
      const heads = Array.from({ length: numRanks }, (_, rank) => {
        const held = kvHeadsOfRank({ numHeads, numKvHeads }, { rank, numRanks });
        const served = numHeads / numRanks / held.length;
        return held.flatMap((head) => new Array<number>(served).fill(head));
      });
      const expected = Array.from({ length: numHeads }, (_, head) => Math.floor(head / ofEach));
      t.same(heads.flat(), expected, `${numKvHeads} of ${ofEach} over ${numRanks}`);
    }
  }
  t.same(kvHeadsOfRank({ numHeads: 12, numKvHeads: 4 }, { rank: 1, numRanks: 2 }), [2, 3]);
  t.same(kvHeadsOfRank({ numHeads: 12, numKvHeads: 4 }, { rank: 0, numRanks: 3 }), [0, 0, 0, 1]);
  t.same(kvHeadsOfRank({ numHeads: 4, numKvHeads: 2 }, { rank: 3, numRanks: 4 }), [1]);
  t.end();
});

t.test('tensors that are split stay where ops work on each column', (t) => {
  const m = new Recorder({ actDtype: 'f32', weightDtype: 'f32' });
  const x = m.embedding(m.weight('e', 64, 8));
  const a = m.linear(x, m.weight('a', 8, 8));
  const b = m.rmsNorm(m.linear(m.silu(a), m.weight('b', 8, 8)), m.weight('n', 8), 1e-5);
  m.add(b, x);
  const ops = shard(m.nodes, { rank: 1, numRanks: 2 }).map(({ op }) => op);
  t.same(ops, 'embedding allReduce linear silu linear allReduce rmsNorm add'.split(' '));
  // Read whole by a norm: it is made whole on every rank.
  const n = new Recorder({ actDtype: 'f32', weightDtype: 'f32' });
  const y: Tensor = n.linear(n.embedding(n.weight('e', 64, 8)), n.weight('a', 8, 8));
  n.rmsNorm(y, n.weight('n', 8), 1e-5);
  const whole = shard(n.nodes, { rank: 1, numRanks: 2 });
  t.same(whole.at(-2)?.args['weight'], n.nodes[1]!.args['weight']);
  t.end();
});

t.test('checkProgram finds what overwrites what other ranks may be reading', (t) => {
  const program = programsOf(demo, 2)[0]!;
  const bufferOf = (op: Op | undefined, name: string) =>
    (op!.args[name] as { buffer: number }).buffer;
  const { ops } = program;
  /** The buffer of one argument at the place of another's. */
  const overlaid = (index: number, name: string, at: Op | undefined, other: string) => {
    const moved = bufferOf(ops[index], name);
    const { offset } = program.buffers[bufferOf(at, other)]!;
    const buffers = program.buffers.map((b, i) => (i === moved ? { ...b, offset } : b));
    return () => checkProgram({ ...program, buffers });
  };
  const reduce = ops.findIndex(({ op }) => op === 'allReduceResidualNorm');
  const last = ops.findLast(({ op }) => op === 'allReduce');
  const sample = ops.at(-1);
  t.throws(overlaid(reduce, 'out', ops[reduce], 'x'), /other ranks may be reading/, 'the norm');
  t.throws(overlaid(reduce + 1, 'out', ops[reduce], 'x'), /other ranks may be reading/, 'qkv');
  // What sampleSharded writes before it meets the others, who may be at the sum before.
  t.throws(overlaid(ops.length - 1, 'out', last, 'x'), /other ranks may be reading/, 'candidates');
  t.throws(overlaid(ops.length - 1, 'out', sample, 'x'), /other ranks may be reading/, 'logits');
  t.end();
});

t.test('the norm of a sum over ranks is one op with it; a second norm of the sum is not', (t) => {
  const m = new Recorder({ actDtype: 'f32', weightDtype: 'f32' });
  const x = m.embedding(m.weight('e', 64, 8));
  const first = m.rmsNorm(x, m.weight('n', 8), 1e-5);
  const second = m.rmsNorm(x, m.weight('o', 8), 1e-6);
  m.add(first, second);
  const nodes = fuseAllReduceNorm(shard(m.nodes, { rank: 1, numRanks: 2 }));
  t.same(
    nodes.map(({ op }) => op),
    ['embedding', 'allReduceResidualNorm', 'rmsNorm', 'add'],
  );
  t.equal(nodes[1]!.args['sum'], x);
  t.equal(nodes[1]!.args['out'], first);
  t.same(nodes[1]!.attrs, { eps: 1e-5 });
  t.equal(nodes[2]!.args['x'], x);
  t.end();
});
