// Reads a Hugging Face folder's config.json and generation_config.json into a ModelConfig: every
// field that matters is checked, and what is not built is refused by name. Weights are not opened.
import type { ModelConfig, RopeScaling } from './config.ts';
import { badModel } from './errors.ts';
import { JsonFields } from './json-fields.ts';
import { statModelPath } from './model-file.ts';

/** Architectures that worker/models has a file for. */
export const supportedArchitectures = [
  'LlamaForCausalLM',
  'MistralForCausalLM',
  'Qwen3ForCausalLM',
] as const;

const count = { min: 1, max: 65_536 };
const size = { min: 1, max: 1_048_576 };
const tokenId = { min: 0, max: 2 ** 31 - 1 };
const positive = { min: 1e-30, max: 1e30 };

const dtypes: Readonly<Record<string, ModelConfig['dtype']>> = {
  float32: 'f32',
  float16: 'f16',
  bfloat16: 'bf16',
};

/** Throws StartError (exit 65) that names file and field. */
export function readModelConfig(folder: string): ModelConfig {
  if (statModelPath(folder)?.isDirectory() !== true)
    throw badModel(
      `${folder} is not a folder: MODEL is a Hugging Face model folder with config.json and *.safetensors`,
    );
  const config = JsonFields.read(folder, 'config.json');
  const architecture = readArchitecture(config);
  refuseUnbuilt(config);
  const hiddenSize = config.integer('hidden_size', size);
  const numHeads = config.integer('num_attention_heads', count);
  const numKvHeads = config.integer('num_key_value_heads', count, numHeads);
  if (numHeads % numKvHeads !== 0)
    throw config.fail('num_key_value_heads', `${numKvHeads} does not divide ${numHeads} heads`);
  if (!config.has('head_dim') && hiddenSize % numHeads !== 0)
    throw config.fail('num_attention_heads', `${numHeads} does not divide hidden_size`);
  const headDim = config.integer('head_dim', count, Math.floor(hiddenSize / numHeads));
  if (headDim % 2 !== 0) throw config.fail('head_dim', `must be even, not ${headDim}`);
  // As many tokens as native row tables have room for.
  const maxPositionEmbeddings = config.integer('max_position_embeddings', {
    min: 1,
    max: 2 ** 26,
  });
  const vocabSize = config.integer('vocab_size', { min: 2, max: 2 ** 24 });
  const rope = readRope(config, maxPositionEmbeddings);
  return {
    path: folder,
    architecture,
    hiddenSize,
    intermediateSize: config.integer('intermediate_size', size),
    numLayers: config.integer('num_hidden_layers', { min: 1, max: 1024 }),
    numHeads,
    numKvHeads,
    headDim,
    vocabSize,
    rmsNormEps: config.number('rms_norm_eps', { min: 0, max: 1 }),
    ropeTheta: rope.theta,
    ropeScaling: rope.scaling,
    tieWordEmbeddings: config.boolean('tie_word_embeddings', false),
    attentionBias: config.boolean('attention_bias', false),
    mlpBias: config.boolean('mlp_bias', false),
    slidingWindow: readSlidingWindow(config, architecture, maxPositionEmbeddings),
    maxPositionEmbeddings,
    dtype: readDtype(config),
    ...readSpecialIds(folder, config, vocabSize),
  };
}

function readArchitecture(config: JsonFields): string {
  const list = config.raw('architectures');
  const supported = supportedArchitectures.join(', ');
  if (!Array.isArray(list) || list.length !== 1 || typeof list[0] !== 'string')
    throw config.fail('architectures', `must name one architecture; supported: ${supported}`);
  const architecture = list[0];
  if (!(supportedArchitectures as readonly string[]).includes(architecture))
    throw config.fail('architectures', `${architecture} is not supported; supported: ${supported}`);
  return architecture;
}

function refuseUnbuilt(config: JsonFields): void {
  for (const name of ['quantization_config', 'compression_config'])
    if (config.has(name))
      throw config.fail(name, 'is set: quantized checkpoints are not built yet');
  const activation = config.string('hidden_act', 'silu');
  if (activation !== 'silu')
    throw config.fail('hidden_act', `${activation} is not built yet; supported: silu`);
  // New folders have it with the rest of what concerns positions.
  for (const fields of [config, config.object('rope_parameters')])
    if (fields && fields.number('partial_rotary_factor', { min: 0, max: 1 }, 1) !== 1)
      throw fields.fail('partial_rotary_factor', 'other than 1 is not built yet');
}

function readDtype(config: JsonFields): ModelConfig['dtype'] {
  const name = config.has('dtype') ? 'dtype' : 'torch_dtype';
  const text = config.string(name, 'float32');
  const dtype = Object.hasOwn(dtypes, text) ? dtypes[text] : undefined;
  if (dtype) return dtype;
  throw config.fail(name, `${text} is not supported; supported: ${Object.keys(dtypes).join(', ')}`);
}

/**
 * Mistral's layers all have the window; Qwen3's from max_window_layers on, if it is switched on. A
 * window that no position reaches is none.
 */
function readSlidingWindow(config: JsonFields, architecture: string, maxPositions: number): number {
  const isMistral = architecture === 'MistralForCausalLM';
  if (architecture === 'LlamaForCausalLM' || !config.has('sliding_window')) return 0;
  if (!config.boolean('use_sliding_window', isMistral)) return 0;
  const window = config.integer('sliding_window', { min: 1, max: 2 ** 31 - 1 });
  if (window >= maxPositions) return 0;
  return isMistral || allLayersSlide(config) ? window : 0;
}

/** Of all layers or of none; layer_types, where it is given, says it layer by layer. */
function allLayersSlide(config: JsonFields): boolean {
  const types = config.raw('layer_types');
  if (Array.isArray(types)) {
    if (types.every((type) => type === 'full_attention')) return false;
    if (types.every((type) => type === 'sliding_attention')) return true;
    throw config.fail('layer_types', 'that differ are not built yet');
  }
  const first = config.integer('max_window_layers', { min: 0, max: 65_536 }, 28);
  if (first === 0) return true;
  if (first >= config.integer('num_hidden_layers', { min: 1, max: 1024 })) return false;
  throw config.fail('max_window_layers', `${first} is not built yet: all layers or none`);
}

/**
 * Old folders have rope_theta and rope_scaling, new ones rope_parameters with both in it. The kind
 * is `rope_type`, once called `type`.
 */
function readRope(
  config: JsonFields,
  maxPositions: number,
): { theta: number; scaling: RopeScaling | null } {
  const parameters = config.object('rope_parameters') ?? config.object('rope_scaling');
  const thetaOf = parameters?.has('rope_theta') ? parameters : config;
  const theta = thetaOf.number('rope_theta', positive, 10_000);
  if (!parameters) return { theta, scaling: null };
  const name = parameters.has('rope_type') ? 'rope_type' : 'type';
  const type = parameters.string(name);
  if (type === 'default') return { theta, scaling: null };
  if (type !== 'linear' && type !== 'llama3' && type !== 'yarn')
    throw parameters.fail(
      name,
      `${type} is not built yet; supported: default, linear, llama3, yarn`,
    );
  return { theta, scaling: readScaling(parameters, type, maxPositions) };
}

function readScaling(
  parameters: JsonFields,
  type: 'linear' | 'llama3' | 'yarn',
  maxPositions: number,
): RopeScaling {
  const factor = parameters.number('factor', { min: 1, max: 1e6 });
  const plain: RopeScaling = {
    type,
    factor,
    originalMaxPositionEmbeddings: maxPositions,
    lowFreqFactor: 1,
    highFreqFactor: 1,
    betaFast: 32,
    betaSlow: 1,
    attentionFactor: 1,
  };
  if (type === 'linear') return plain;
  const original = 'original_max_position_embeddings';
  const positions = { min: 1, max: 2 ** 27 };
  if (type === 'yarn') {
    for (const field of ['mscale', 'mscale_all_dim'])
      if (parameters.has(field)) throw parameters.fail(field, 'is not built yet');
    if (!parameters.boolean('truncate', true))
      throw parameters.fail('truncate', 'false is not built yet');
    return {
      ...plain,
      originalMaxPositionEmbeddings: parameters.integer(original, positions, maxPositions),
      betaFast: parameters.number('beta_fast', positive, 32),
      betaSlow: parameters.number('beta_slow', positive, 1),
      attentionFactor: parameters.number('attention_factor', positive, 0.1 * Math.log(factor) + 1),
    };
  }
  const lowFreqFactor = parameters.number('low_freq_factor', positive);
  const highFreqFactor = parameters.number('high_freq_factor', positive);
  if (highFreqFactor <= lowFreqFactor)
    throw parameters.fail('high_freq_factor', 'must be above low_freq_factor');
  const originalMaxPositionEmbeddings = parameters.integer(original, positions);
  return { ...plain, originalMaxPositionEmbeddings, lowFreqFactor, highFreqFactor };
}

/** Every id that either file calls an end of text; generation_config.json comes first. */
function readSpecialIds(
  folder: string,
  config: JsonFields,
  vocabSize: number,
): { eosTokenIds: number[]; bosTokenId: number | null } {
  const eosTokenIds = new Set<number>();
  for (const fields of [JsonFields.readOptional(folder, 'generation_config.json'), config])
    for (const id of fields?.integers('eos_token_id', tokenId) ?? []) {
      if (id >= vocabSize)
        throw fields!.fail('eos_token_id', `${id} is outside the vocabulary of ${vocabSize}`);
      eosTokenIds.add(id);
    }
  const bosTokenId = config.has('bos_token_id') ? config.integer('bos_token_id', tokenId) : null;
  return { eosTokenIds: [...eosTokenIds], bosTokenId };
}
