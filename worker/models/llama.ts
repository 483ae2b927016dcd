// The Llama family: Llama 2 and 3.x, SmolLM2, Mistral.
import type { ModelConfig } from '../../common/config.ts';
import { selfAttention } from '../layers/attention.ts';
import { gatedMlp } from '../layers/mlp.ts';
import { rmsNorm } from '../layers/norm.ts';
import { rotary } from '../layers/rope.ts';
import type { Recorder } from '../program/recorder.ts';

export function llama(m: Recorder, config: ModelConfig, options = { headNorms: false }): void {
  const { vocabSize, hiddenSize, numLayers, tieWordEmbeddings } = config;
  const embedTokens = m.weight('model.embed_tokens.weight', vocabSize, hiddenSize);
  const lmHead = tieWordEmbeddings
    ? embedTokens
    : m.weight('lm_head.weight', vocabSize, hiddenSize);

  const cosSin = rotary(m, config);
  let h = m.embedding(embedTokens);
  for (let layer = 0; layer < numLayers; layer++) {
    const name = `model.layers.${layer}`;
    const x = rmsNorm(m, config, h, `${name}.input_layernorm`);
    h = m.add(h, selfAttention(m, config, x, `${name}.self_attn`, { layer, cosSin, ...options }));
    const y = rmsNorm(m, config, h, `${name}.post_attention_layernorm`);
    h = m.add(h, gatedMlp(m, config, y, `${name}.mlp`));
  }
  m.sample(m.logits(rmsNorm(m, config, m.gatherLogitRows(h), 'model.norm'), lmHead));
}
