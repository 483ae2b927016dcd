// Architecture names to the files that record them.
import type { ModelConfig } from '../../common/config.ts';
import type { supportedArchitectures } from '../../common/model-config.ts';
import type { Recorder } from '../program/recorder.ts';
import { llama } from './llama.ts';
import { qwen3 } from './qwen3.ts';

export type ModelFunction = (m: Recorder, config: ModelConfig) => void;

export const models: Readonly<Record<(typeof supportedArchitectures)[number], ModelFunction>> = {
  LlamaForCausalLM: llama,
  MistralForCausalLM: llama,
  Qwen3ForCausalLM: qwen3,
};
