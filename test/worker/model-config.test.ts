// config.json and generation_config.json: what is read, and what each bad field is told.
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { readModelConfig } from '../../common/model-config.ts';

const demo = JSON.parse(readFileSync('models/demo/config.json', 'utf8')) as Record<string, unknown>;

const qwen3Window = {
  architectures: ['Qwen3ForCausalLM'],
  use_sliding_window: true,
  sliding_window: 64,
};

function read(t: Test, changes: Record<string, unknown>, generation?: unknown) {
  const files: Record<string, string> = { 'config.json': JSON.stringify({ ...demo, ...changes }) };
  if (generation !== undefined) files['generation_config.json'] = JSON.stringify(generation);
  return readModelConfig(t.testdir(files));
}

t.test('the demo model', (t) => {
  t.match(readModelConfig('models/demo'), {
    architecture: 'LlamaForCausalLM',
    hiddenSize: 256,
    intermediateSize: 704,
    numLayers: 8,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    vocabSize: 8192,
    ropeTheta: 10000,
    ropeScaling: null,
    tieWordEmbeddings: true,
    slidingWindow: 0,
    maxPositionEmbeddings: 2048,
    dtype: 'bf16',
    eosTokenIds: [2, 0],
    bosTokenId: 0,
  });
  t.end();
});

t.test('fields that may be missing or have an older name', (t) => {
  const plain = read(t, { num_key_value_heads: null, head_dim: undefined, dtype: null });
  t.match(plain, { numKvHeads: 4, headDim: 64, dtype: 'bf16', eosTokenIds: [2] });
  const linear = read(t, { rope_scaling: { type: 'linear', factor: 2 } });
  t.match(linear.ropeScaling, { type: 'linear', factor: 2 });
  const llama3 = {
    rope_type: 'llama3',
    rope_theta: 5e5,
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  t.match(read(t, { rope_parameters: llama3 }), {
    ropeTheta: 5e5,
    ropeScaling: { type: 'llama3', factor: 8, originalMaxPositionEmbeddings: 8192 },
  });
  t.equal(read(t, { rope_scaling: { rope_type: 'default' } }).ropeScaling, null);
  const mistral = { architectures: ['MistralForCausalLM'] };
  t.equal(read(t, { ...mistral, sliding_window: null }).slidingWindow, 0);
  t.equal(read(t, { ...mistral, sliding_window: 2048 }).slidingWindow, 0, 'no position reaches it');
  t.equal(read(t, { ...mistral, sliding_window: 1024 }).slidingWindow, 1024);
  t.equal(read(t, { sliding_window: 64 }).slidingWindow, 0, 'Llama has none');
  t.equal(read(t, { ...qwen3Window, max_window_layers: 0 }).slidingWindow, 64);
  t.equal(read(t, { ...qwen3Window, max_window_layers: 28 }).slidingWindow, 0, 'no layer has it');
  t.equal(read(t, { ...qwen3Window, use_sliding_window: false }).slidingWindow, 0);
  const types = (...names: string[]) => ({ layer_types: names.map((name) => `${name}_attention`) });
  t.equal(read(t, { ...qwen3Window, ...types('full', 'full') }).slidingWindow, 0);
  t.equal(read(t, { ...qwen3Window, ...types('sliding', 'sliding') }).slidingWindow, 64);
  t.strictSame(read(t, { eos_token_id: [5, 6] }, { eos_token_id: 7 }).eosTokenIds, [7, 5, 6]);
  t.end();
});

const bad: [Record<string, unknown>, RegExp][] = [
  [
    { architectures: ['GPT2LMHeadModel'] },
    /architectures GPT2LMHeadModel is not supported; supported: LlamaForCausalLM, MistralForCausalLM, Qwen3ForCausalLM/,
  ],
  [{ architectures: null }, /architectures must name one/],
  [{ architectures: ['toString'] }, /toString is not supported/],
  [{ hidden_size: null }, /hidden_size is missing/],
  [{ hidden_size: '256' }, /hidden_size must be an integer from 1 to 1048576, not "256"/],
  [{ hidden_size: 1e12 }, /hidden_size must be an integer/],
  [{ num_hidden_layers: 0 }, /num_hidden_layers must be an integer from 1/],
  [{ num_key_value_heads: 3 }, /num_key_value_heads 3 does not divide 4 heads/],
  [{ head_dim: null, num_attention_heads: 6 }, /num_attention_heads 6 does not divide hidden_size/],
  [{ head_dim: 63 }, /head_dim must be even/],
  [
    { max_position_embeddings: 2 ** 27 },
    /max_position_embeddings must be an integer from 1 to 67108864/,
  ],
  [{ hidden_act: 'gelu' }, /hidden_act gelu is not built yet/],
  [{ tie_word_embeddings: 'yes' }, /tie_word_embeddings must be a boolean/],
  [{ dtype: 'float8' }, /dtype float8 is not supported; supported: float32, float16, bfloat16/],
  [{ quantization_config: { bits: 4 } }, /quantization_config is set/],
  [{ rope_scaling: { rope_type: 'longrope', factor: 2 } }, /rope_type longrope is not built yet/],
  [{ rope_scaling: { rope_type: 'yarn', factor: 2, mscale: 1 } }, /mscale is not built yet/],
  [{ rope_scaling: { type: 'dynamic', factor: 2 } }, /rope_scaling: type dynamic is not built yet/],
  [{ rope_scaling: { type: 'linear' } }, /rope_scaling: factor is missing/],
  [{ rope_scaling: 'linear' }, /rope_scaling must be an object/],
  ...[1, 4].map((high_freq_factor): [Record<string, unknown>, RegExp] => [
    { rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor } },
    /high_freq_factor must be above low_freq_factor/,
  ]),
  [{ rope_theta: 0 }, /rope_theta must be a number/],
  [{ rms_norm_eps: -1 }, /rms_norm_eps must be a number from 0 to 1, not -1/],
  [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor other than 1/],
  [
    { rope_parameters: { rope_type: 'default', partial_rotary_factor: 0.5 } },
    /rope_parameters: partial_rotary_factor other than 1/,
  ],
  ...[8192, 9000].map((id): [Record<string, unknown>, RegExp] => [
    { eos_token_id: id },
    new RegExp(`eos_token_id ${id} is outside the vocabulary`),
  ]),
  [{ eos_token_id: [1, -1] }, /eos_token_id must be integers/],
  [
    { architectures: ['MistralForCausalLM'], sliding_window: 0 },
    /sliding_window must be an integer/,
  ],
  [
    { ...qwen3Window, max_window_layers: 1 },
    /max_window_layers 1 is not built yet: all layers or none/,
  ],
  [
    { ...qwen3Window, layer_types: ['sliding_attention', 'full_attention'] },
    /layer_types that differ/,
  ],
];

t.test('bad fields are named with their file, exit code 65', (t) => {
  for (const [changes, message] of bad) {
    const error = t.throws(() => read(t, changes), message) as unknown;
    t.match(error, { name: 'StartError', exitCode: 65, message: /config\.json: / });
  }
  t.end();
});

t.test('files that cannot be read', (t) => {
  t.throws(() => readModelConfig('/nonexistent'), /is not a folder: MODEL is a Hugging Face/);
  t.throws(() => readModelConfig(t.testdir({})), /config.json does not exist/);
  t.throws(() => readModelConfig(t.testdir({ 'config.json': '{' })), /config.json: .*JSON/);
  t.throws(() => readModelConfig(t.testdir({ 'config.json': '[]' })), /is not a JSON object/);
  t.throws(
    () => read(t, {}, { eos_token_id: 'x' }),
    /generation_config.json: eos_token_id must be integers/,
  );
  t.end();
});
