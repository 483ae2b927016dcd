// Grouped-query self-attention with rotary positions, over the paged cache.
import type { ModelConfig } from '../../common/config.ts';
import type { Tensor } from '../program/graph.ts';
import type { Recorder } from '../program/recorder.ts';
import { linear } from './linear.ts';

export interface AttentionOptions {
  readonly layer: number;
  /** [T, headDim] from rotary() */
  readonly cosSin: Tensor;
  /** Norms of each query and key head before the rotation (q_norm, k_norm). */
  readonly headNorms?: boolean;
}

export function selfAttention(
  m: Recorder,
  config: ModelConfig,
  x: Tensor,
  name: string,
  { layer, cosSin, headNorms = false }: AttentionOptions,
): Tensor {
  const { numHeads, numKvHeads, headDim, hiddenSize, attentionBias, slidingWindow } = config;
  let q = linear(m, x, `${name}.q_proj`, numHeads * headDim, attentionBias);
  let k = linear(m, x, `${name}.k_proj`, numKvHeads * headDim, attentionBias);
  const v = linear(m, x, `${name}.v_proj`, numKvHeads * headDim, attentionBias);
  if (headNorms) {
    q = m.headNorm(q, m.weight(`${name}.q_norm.weight`, headDim), config.rmsNormEps);
    k = m.headNorm(k, m.weight(`${name}.k_norm.weight`, headDim), config.rmsNormEps);
  }
  const out = m.cachedAttention(m.rope(q, cosSin), m.rope(k, cosSin), v, {
    layer,
    numHeads,
    numKvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
    window: slidingWindow,
  });
  return linear(m, out, `${name}.o_proj`, hiddenSize, attentionBias);
}
