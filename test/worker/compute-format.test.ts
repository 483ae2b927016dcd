// What each device computes in, and what is refused by name.
import t from 'tap';
import type { ModelConfig } from '../../common/config.ts';
import { readModelConfig } from '../../common/model-config.ts';
import { computeFormat } from '../../worker/compute-format.ts';
import { checkKvBlocks } from '../../worker/kv-size.ts';

const demo = readModelConfig('models/demo');
type Slice = Parameters<typeof computeFormat>[0];
const auto: Slice = {
  device: 'cuda',
  dtype: 'auto',
  kvCacheDtype: 'auto',
  model: demo,
  blockSize: 16,
  numRanks: 1,
};
const format = (options: Partial<Slice> = {}, model: Partial<ModelConfig> = {}) =>
  computeFormat({ ...auto, ...options, model: { ...demo, ...model } });

t.test('cuda computes in the dtype of the model, weights and KV alike', (t) => {
  const bf16 = { actDtype: 'bf16', weightDtype: 'bf16', kvDtype: 'bf16' };
  t.same(format(), {
    ...bf16,
    interleave: 8,
    residualInPlace: false,
    gateUpRows: 2048,
    notes: [],
  });
  t.match(format({}, { dtype: 'f16' }), { actDtype: 'f16', weightDtype: 'f16', kvDtype: 'f16' });
  t.match(format({ dtype: 'f16' }), { actDtype: 'f16', weightDtype: 'f16', kvDtype: 'f16' });
  t.match(format({ kvCacheDtype: 'bf16' }), bf16);
  const wide = format({}, { dtype: 'f32' });
  t.match(wide, { actDtype: 'bf16', weightDtype: 'bf16' });
  t.match(wide.notes, [/float32/], 'and says so');
  t.same(format({ dtype: 'bf16' }, { dtype: 'f32' }).notes, [], 'but not what was asked for');
  t.end();
});

t.test('cpu computes in f32 and keeps the weights of the checkpoint', (t) => {
  const cpu = { actDtype: 'f32', weightDtype: 'bf16', kvDtype: 'f32' };
  t.same(format({ device: 'cpu' }), { ...cpu, interleave: 0, residualInPlace: true, notes: [] });
  t.match(format({ device: 'cpu', kvCacheDtype: 'bf16' }), { kvDtype: 'bf16' });
  t.end();
});

const refused: readonly [Partial<Slice>, Partial<ModelConfig>, number, RegExp][] = [
  [{ dtype: 'f32' }, {}, 64, /--dtype float32 is not built on cuda; supported: bfloat16, float16/],
  [{ kvCacheDtype: 'f32' }, {}, 64, /--kv-cache-dtype float32 .* with bfloat16/],
  [{ blockSize: 48 }, {}, 64, /--block-size: 48/],
  [{}, { headDim: 112 }, 65, /config.json: head_dim 112 is not built .*--device cpu runs it/],
  [{}, { numHeads: 64, numKvHeads: 2 }, 65, /num_attention_heads more than 16/],
  [{}, { intermediateSize: 1000 }, 65, /intermediate_size 1000, no multiple of 16/],
  [{}, { hiddenSize: 32_768 }, 65, /hidden_size above 16384/],
  [{ device: 'cpu', dtype: 'bf16' }, {}, 64, /--dtype bfloat16 is not built on cpu/],
  [{ device: 'cpu', kvCacheDtype: 'f16' }, {}, 64, /--kv-cache-dtype float16 is not built on cpu/],
];
for (const [options, model, exitCode, message] of refused)
  t.test(`refused: ${JSON.stringify({ ...options, ...model })}`, (t) => {
    t.throws(() => format(options, model), { exitCode, message });
    t.end();
  });

t.test('what one GPU cannot run by its shape, several may', (t) => {
  t.match(format({ numRanks: 2 }, { intermediateSize: 1000 }), { interleave: 8 });
  t.match(format({ numRanks: 4 }, { numHeads: 64, numKvHeads: 2 }), { interleave: 8 });
  t.throws(
    () => format({ numRanks: 2 }, { numHeads: 128, numKvHeads: 2 }),
    /more than 16 for each/,
  );
  t.end();
});

t.test('a KV cache below one request names the length that fits', (t) => {
  const sizes = {
    maxModelLen: 4096,
    fitModelLen: false,
    blockSize: 16,
    slidingWindow: 0,
    maxNumBatchedTokens: 512,
  };
  t.doesNotThrow(() => checkKvBlocks(257, sizes));
  t.doesNotThrow(() => checkKvBlocks(70, { ...sizes, slidingWindow: 512 }), 'no more is held');
  t.doesNotThrow(() => checkKvBlocks(2, { ...sizes, fitModelLen: true }));
  t.throws(() => checkKvBlocks(256, sizes), {
    exitCode: 64,
    message:
      /holds 4080 tokens, less than one request of 4096: raise .*, or lower --max-model-len to 4080 or/,
  });
  t.end();
});
