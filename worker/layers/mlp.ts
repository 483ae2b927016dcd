// The gated MLP: down(silu(gate(x)) * up(x)).
import type { ModelConfig } from '../../common/config.ts';
import type { Tensor } from '../program/graph.ts';
import type { Recorder } from '../program/recorder.ts';
import { linear } from './linear.ts';

export function gatedMlp(m: Recorder, config: ModelConfig, x: Tensor, name: string): Tensor {
  const { intermediateSize, mlpBias, hiddenSize } = config;
  const gate = linear(m, x, `${name}.gate_proj`, intermediateSize, mlpBias);
  const up = linear(m, x, `${name}.up_proj`, intermediateSize, mlpBias);
  return linear(m, m.mul(m.silu(gate), up), `${name}.down_proj`, hiddenSize, mlpBias);
}
