// The program of a small Llama: what the passes make of it, the arena, and what checks refuse.
import t from 'tap';
import { supportedArchitectures } from '../../common/model-config.ts';
import { models } from '../../worker/models/registry.ts';
import { buildProgram } from '../../worker/program/build.ts';
import { checkProgram } from '../../worker/program/check.ts';
import { printProgram } from '../../worker/program/print.ts';
import type { Tensor } from '../../worker/program/graph.ts';
import { fuseAttention } from '../../worker/program/passes/fuse-attention.ts';
import { fuseSiluAndMul } from '../../worker/program/passes/fuse-silu-and-mul.ts';
import { mergeLinears } from '../../worker/program/passes/merge-linears.ts';
import { Recorder } from '../../worker/program/recorder.ts';
import type { BufferSpec, Program, WeightSource } from '../../kernels/program.ts';
import { demo, options } from './demo-layer.ts';

t.test('a Llama layer becomes fused ops with merged weights', (t) => {
  const layer = 'model.layers.0';
  t.equal(
    printProgram(buildProgram(demo, options)),
    `%0[numTokens,64] f32 = ropeCosSin(invFreq=rotary.invFreq[32] f32, factor=1)
%1[numTokens,256] f32 = embedding(weight=model.embed_tokens.weight[8192,256] bf16, firstId=0)
%2[numTokens,256] f32 = rmsNorm(x=%1, weight=${layer}.input_layernorm.weight[256] bf16, eps=0.00001)
%3[numTokens,512] f32 = linear(x=%2, weight=${layer}.self_attn.{q,k,v}_proj.weight[512,256] bf16)
ropeAndCache(qkv=%3, cosSin=%0, layer=0, numHeads=4, numKvHeads=2, headDim=64)
%4[numTokens,256] f32 = attention(qkv=%3, layer=0, numHeads=4, numKvHeads=2, headDim=64, scale=0.125, window=0)
%1[numTokens,256] f32 = linear(x=%4, weight=${layer}.self_attn.o_proj.weight[256,256] bf16, residual=%1)
%5[numTokens,256] f32 = rmsNorm(x=%1, weight=${layer}.post_attention_layernorm.weight[256] bf16, eps=0.00001)
%6[numTokens,1408] f32 = linear(x=%5, weight=${layer}.mlp.{gate,up}_proj.weight[1408,256] bf16)
%7[numTokens,704] f32 = siluAndMul(gateUp=%6)
%1[numTokens,256] f32 = linear(x=%7, weight=${layer}.mlp.down_proj.weight[256,704] bf16, residual=%1)
%8[numLogits,256] f32 = gatherLogitRows(x=%1)
%9[numLogits,256] f32 = rmsNorm(x=%8, weight=model.norm.weight[256] bf16, eps=0.00001)
%10[numLogits,8192] f32 = linear(x=%9, weight=model.embed_tokens.weight[8192,256] bf16)
sample(logits=%10)
`,
  );
  t.end();
});

const whole = (tensor: string, numRows: number, numColumns: number): WeightSource => ({
  tensor,
  tensorShape: [numRows, numColumns],
  rowStart: 0,
  numRows,
  columnStart: 0,
  numColumns,
});

t.test('merged weights name their checkpoint tensors in order', (t) => {
  const { weights } = buildProgram(demo, options);
  const qkv = weights.find(({ name }) => name.includes('{q,k,v}'))!;
  const name = (part: string) => `model.layers.0.self_attn.${part}_proj.weight`;
  t.strictSame(qkv.sources, [
    whole(name('q'), 256, 256),
    whole(name('k'), 128, 256),
    whole(name('v'), 128, 256),
  ]);
  t.end();
});

t.test('Qwen3 norms its heads in place, biases merge, the head may be untied', (t) => {
  const program = buildProgram(
    { ...demo, architecture: 'Qwen3ForCausalLM', attentionBias: true, tieWordEmbeddings: false },
    { ...options, interleave: 8 },
  );
  const text = printProgram(program);
  t.match(text, 'headRmsNorm(qkv=%3, qWeight=model.layers.0.self_attn.q_norm.weight[64] bf16');
  t.match(text, 'bias=model.layers.0.self_attn.{q,k,v}_proj.bias[512] bf16');
  t.match(text, '{gate,up}_proj.weight[1408,256] bf16 interleave 8');
  t.match(text, 'lm_head.weight[8192,256]');
  t.end();
});

t.test('every supported architecture has a model file', (t) => {
  t.strictSame(Object.keys(models).sort(), [...supportedArchitectures].sort());
  t.end();
});

t.test('the arena reuses memory, whatever the number of layers', (t) => {
  const few = buildProgram({ ...demo, numLayers: 2 }, options);
  const many = buildProgram({ ...demo, numLayers: 12 }, options);
  t.equal(many.arenaBytes, few.arenaBytes);
  const sum = many.buffers.reduce((bytes, b) => bytes + b.columns * 96 * 4, 0);
  t.ok(many.arenaBytes < sum / 10);
  t.ok(many.buffers.every(({ offset }) => offset % 256 === 0));
  t.end();
});

t.test('gate and up take memory for as many rows as a backend makes at a time', (t) => {
  const wide = { ...demo, intermediateSize: 4096 };
  const all = buildProgram(wide, options);
  const part = buildProgram(wide, { ...options, gateUpRows: 32 });
  t.equal(printProgram(part), printProgram(all));
  t.equal(all.arenaBytes - part.arenaBytes, (96 - 32) * 2 * 4096 * 4);
  const partial = (program: Program) =>
    program.buffers.filter(({ rowsAtOnce }) => rowsAtOnce !== undefined);
  t.match(partial(part), [{ columns: 2 * 4096, rowsAtOnce: 32 }]);
  t.equal(partial(part).length, 1);
  t.same(partial(all), []);
  t.equal(buildProgram(wide, { ...options, gateUpRows: 200 }).arenaBytes, all.arenaBytes);
  t.end();
});

t.test(
  'a backend whose linears cannot write over their residual gets other memory for them',
  (t) => {
    const shared = (residualInPlace: boolean) => {
      const { ops, buffers } = buildProgram(demo, { ...options, residualInPlace });
      return ops.filter(({ args: { out, residual } }) => {
        if (!out || !residual || !('buffer' in out) || !('buffer' in residual)) return false;
        const [a, b] = [buffers[out.buffer]!, buffers[residual.buffer]!];
        return a.offset < b.offset + b.columns * 96 * 4 && b.offset < a.offset + a.columns * 96 * 4;
      }).length;
    };
    t.equal(shared(true), 2, 'o_proj and down_proj');
    t.equal(shared(false), 0);
    t.end();
  },
);

t.test('what the ops from gatherLogitRows on read survives them, for they may run again', (t) => {
  // Logits so large that the planner would like the residual stream's place for them.
  t.doesNotThrow(() => buildProgram(demo, { ...options, maxNumTokens: 8, maxNumLogits: 64 }));
  t.end();
});

t.test('attention is fused only where q, k and v lie in this order', (t) => {
  const record = (order: readonly ('q' | 'k' | 'v')[]) => {
    const m = new Recorder({ actDtype: 'f32', weightDtype: 'f32' });
    const x = m.embedding(m.weight('e', 10, 8));
    const cosSin = m.ropeCosSin(m.constant('f', new Float32Array(2)), 1);
    const parts = Object.fromEntries(
      order.map((name) => [name, m.linear(x, m.weight(name, 8, 8))]),
    );
    const { q, k, v } = parts as Record<'q' | 'k' | 'v', Tensor>;
    const heads = { numHeads: 2, numKvHeads: 2, headDim: 4 };
    m.cachedAttention(m.rope(q, cosSin), m.rope(k, cosSin), v, {
      ...heads,
      layer: 0,
      scale: 1,
      window: 0,
    });
    return fuseAttention(mergeLinears(m.nodes)).map((node) => node.op);
  };
  t.strictSame(record(['q', 'k', 'v']).slice(3), ['ropeAndCache', 'attention']);
  t.equal(record(['v', 'k', 'q']).at(-1), 'cachedAttention');
  t.end();
});

t.test('silu(gate) times up is fused only where gate is the first half and up the second', (t) => {
  const record = (order: readonly string[], otherRows = 8) => {
    const m = new Recorder({ actDtype: 'f32', weightDtype: 'f32' });
    const x = m.embedding(m.weight('e', 10, 8));
    const parts = Object.fromEntries(
      order.map((name) => [name, m.linear(x, m.weight(name, name === 'other' ? otherRows : 8, 8))]),
    );
    m.mul(m.silu(parts['gate']!), parts['up']!);
    return fuseSiluAndMul(mergeLinears(m.nodes), 0).at(-1)!.op;
  };
  t.equal(record(['gate', 'up']), 'siluAndMul');
  t.equal(record(['up', 'gate']), 'mul');
  t.equal(record(['gate', 'up', 'other']), 'mul', 'it is no half');
  t.equal(record(['other', 'up', 'gate'], 16), 'mul', 'gate does not begin them');
  const m = new Recorder({ actDtype: 'f32', weightDtype: 'f32' });
  const x = m.embedding(m.weight('e', 10, 8));
  m.mul(m.silu(x), x);
  t.equal(fuseSiluAndMul(m.nodes, 0).at(-1)!.op, 'mul', 'nothing is cut out of a linear');
  t.end();
});

t.test('checkProgram finds buffers that overlap while both are needed', (t) => {
  const program = buildProgram(demo, options);
  const moved = (index: number, offset: number): Program => ({
    ...program,
    buffers: program.buffers.map((b, i): BufferSpec => (i === index ? { ...b, offset } : b)),
  });
  // cosSin onto qkv, the residual stream onto the logits (which a second pass of the tail needs).
  t.throws(() => checkProgram(moved(0, program.buffers[3]!.offset)), /overwritten before/);
  t.throws(() => checkProgram(moved(1, program.buffers[10]!.offset)), /overwritten before/);
  // Beyond all others, with the last 256 bytes of qkv on the first of cosSin.
  const end = program.arenaBytes;
  const apart = moved(3, end);
  const qkvBytes = 96 * program.buffers[3]!.columns * 4;
  const cosSin = { ...program.buffers[0]!, offset: end + qkvBytes - 256 };
  const buffers = [cosSin, ...apart.buffers.slice(1)];
  t.throws(() => checkProgram({ ...apart, buffers }), /overwritten before/);
  t.end();
});

t.test('what goes into a norm, a linear and siluAndMul lies where none of them writes', (t) => {
  const counts = { norm: 0, silu: 0 };
  for (const intermediateSize of [64, 128, 256, 512]) {
    const { ops, buffers } = buildProgram({ ...demo, intermediateSize }, options);
    const bufferOf = (index: number, name: string) => {
      const arg = ops[index]!.args[name];
      return arg && 'buffer' in arg ? [buffers[arg.buffer]!] : [];
    };
    const end = ({ offset, rows, columns }: BufferSpec) =>
      offset + 4 * columns * (rows === 'numTokens' ? options.maxNumTokens : options.maxNumLogits);
    const overlap = (a: BufferSpec, b: BufferSpec) => a.offset < end(b) && b.offset < end(a);
    ops.forEach(({ op }, i) => {
      if (op !== 'linear') return;
      const inputs = bufferOf(i, 'x');
      const outputs = bufferOf(i, 'out');
      if (ops[i - 1]!.op === 'rmsNorm') inputs.push(...bufferOf(i - 1, 'x'));
      if (ops[i + 1]!.op === 'siluAndMul') outputs.push(...bufferOf(i + 1, 'out'));
      if (inputs.length > 1) counts.norm++;
      if (outputs.length > 1) counts.silu++;
      const overlaps = inputs.some((a) => outputs.some((b) => overlap(a, b)));
      t.notOk(overlaps, `op ${i}, intermediate size ${intermediateSize}`);
    });
  }
  t.same(counts, { norm: 12, silu: 4 });
  t.end();
});

t.test('checkProgram names op and argument of a wrong shape', (t) => {
  const program = buildProgram(demo, options);
  const buffers = program.buffers.map((b, i) => (i === 4 ? { ...b, columns: 255 } : b));
  t.throws(
    () => checkProgram({ ...program, buffers }),
    /op 5 attention: out: Q\*D is 255, not 256/,
  );
  const half = program.buffers.map((b, i): BufferSpec => (i === 4 ? { ...b, dtype: 'bf16' } : b));
  t.throws(
    () => checkProgram({ ...program, buffers: half }),
    /op 5 attention: out is bf16, not f32/,
  );
  t.end();
});

t.test('linears that differ in input or bias stay apart', (t) => {
  const m = new Recorder({ actDtype: 'f32', weightDtype: 'f32' });
  const x = m.embedding(m.weight('e', 10, 4));
  m.linear(x, m.weight('a', 3, 4));
  m.linear(x, m.weight('b', 3, 4), m.weight('c', 3));
  m.linear(m.silu(x), m.weight('d', 3, 4));
  t.equal(mergeLinears(m.nodes).length, m.nodes.length);
  t.end();
});
