// RMSNorm with its weight.
import type { ModelConfig } from '../../common/config.ts';
import type { Tensor } from '../program/graph.ts';
import type { Recorder } from '../program/recorder.ts';

export function rmsNorm(m: Recorder, config: ModelConfig, x: Tensor, name: string): Tensor {
  return m.rmsNorm(x, m.weight(`${name}.weight`, x.columns), config.rmsNormEps);
}
