// Model folders of true shapes without their weights: config.json as the models' own, and where a
// row needs a file to load, one with random numbers in it.
import { closeSync, mkdirSync, openSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { readModelConfig } from '../../common/model-config.ts';
import { dtypeBytes } from '../../kernels/program.ts';
import { buildProgram } from '../../worker/program/build.ts';

const llama3 = (factor: number) => ({
  rope_type: 'llama3',
  factor,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
});

const common = {
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  dtype: 'bfloat16',
  attention_bias: false,
  mlp_bias: false,
  bos_token_id: 1,
  eos_token_id: 2,
};

/** Fields of config.json by name of the shape. */
export const shapes = {
  'llama-1b': {
    ...common,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 64,
    vocab_size: 128_256,
    max_position_embeddings: 131_072,
    rope_theta: 500_000,
    rope_scaling: llama3(32),
    tie_word_embeddings: true,
  },
  'llama-8b': {
    ...common,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 128_256,
    max_position_embeddings: 131_072,
    rope_theta: 500_000,
    rope_scaling: llama3(8),
    tie_word_embeddings: false,
  },
  'llama-70b': {
    ...common,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 8192,
    intermediate_size: 28_672,
    num_hidden_layers: 80,
    num_attention_heads: 64,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 128_256,
    max_position_embeddings: 131_072,
    rope_theta: 500_000,
    rope_scaling: llama3(8),
    tie_word_embeddings: false,
  },
  'qwen3-0.6b': {
    ...common,
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    hidden_size: 1024,
    intermediate_size: 3072,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 151_936,
    max_position_embeddings: 40_960,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
    tie_word_embeddings: true,
  },
  // Two ranks have 3 of its KV heads each, one of them twice, and columns beyond the end.
  uneven: {
    ...common,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 384,
    intermediate_size: 1040,
    num_hidden_layers: 4,
    num_attention_heads: 6,
    num_key_value_heads: 3,
    head_dim: 64,
    vocab_size: 31_003,
    max_position_embeddings: 4096,
    rope_theta: 10_000,
    tie_word_embeddings: false,
  },
} as const;

export type ShapeName = keyof typeof shapes;

/** The folder of a shape under `where`, with its config.json. */
export function writeShape(where: string, name: ShapeName): string {
  const folder = join(where, name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(shapes[name], null, 2));
  return folder;
}

/** Adds model.safetensors with random bf16 numbers, unless it is there; returns its bytes. */
export function writeRandomWeights(folder: string): number {
  const file = join(folder, 'model.safetensors');
  const present = statSync(file, { throwIfNoEntry: false });
  if (present) return present.size;
  const tensors = tensorShapes(folder);
  const header: Record<string, object> = {};
  let end = 0;
  for (const [name, shape] of tensors) {
    const begin = end;
    end += shape.reduce((product, n) => product * n, 1) * dtypeBytes.bf16;
    header[name] = { dtype: 'BF16', shape, data_offsets: [begin, end] };
  }
  const text = JSON.stringify(header).padEnd(8 * Math.ceil(JSON.stringify(header).length / 8));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  const fd = openSync(file, 'w');
  try {
    writeSync(fd, Buffer.concat([head, Buffer.from(text)]));
    const noise = randomBf16(16 << 20);
    for (const [, shape] of tensors) {
      let left = shape.reduce((product, n) => product * n, 1) * dtypeBytes.bf16;
      const bytes = shape.length === 1 ? onesBf16(left / 2) : noise;
      for (; left > 0; left -= Math.min(left, bytes.length))
        writeSync(fd, bytes, 0, Math.min(left, bytes.length));
    }
  } finally {
    closeSync(fd);
  }
  return statSync(file).size;
}

/** Names and shapes of the tensors that the model's program reads. */
function tensorShapes(folder: string): Map<string, readonly number[]> {
  const program = buildProgram(readModelConfig(folder), {
    actDtype: 'bf16',
    weightDtype: 'bf16',
    kvDtype: 'bf16',
    interleave: 0,
    maxNumTokens: 1,
    maxNumLogits: 1,
  });
  const found = new Map<string, readonly number[]>();
  for (const { sources, shape } of program.weights)
    for (const { tensor, numRows } of sources) found.set(tensor, [numRows, ...shape.slice(1)]);
  return found;
}

/** Uniform in +-0.035: a standard deviation of 0.02. */
function randomBf16(count: number): Buffer {
  const values = new Float32Array(count);
  let state = 1;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    values[i] = (state / 2 ** 31) * 0.035;
  }
  return highHalves(values);
}

const onesBf16 = (count: number) => highHalves(new Float32Array(count).fill(1));

function highHalves(values: Float32Array): Buffer {
  const halves = new Uint16Array(values.buffer);
  const result = new Uint16Array(values.length);
  for (let i = 0; i < result.length; i++) result[i] = halves[2 * i + 1]!;
  return Buffer.from(result.buffer);
}
