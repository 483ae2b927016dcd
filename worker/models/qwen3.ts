// Qwen3 (dense): Llama with a norm on each query and key head.
import type { ModelConfig } from '../../common/config.ts';
import type { Recorder } from '../program/recorder.ts';
import { llama } from './llama.ts';

export function qwen3(m: Recorder, config: ModelConfig): void {
  llama(m, config, { headNorms: true });
}
