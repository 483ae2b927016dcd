// Rotary position tables: inverse frequencies, scaled as the model was trained.
import type { ModelConfig, RopeScaling } from '../../common/config.ts';
import type { Tensor } from '../program/graph.ts';
import type { Recorder } from '../program/recorder.ts';

/** Cosines and sines of the step's positions, [T, headDim] f32. */
export function rotary(m: Recorder, config: ModelConfig): Tensor {
  const factor = config.ropeScaling?.attentionFactor ?? 1;
  return m.ropeCosSin(m.constant('rotary.invFreq', inverseFrequencies(config)), factor);
}

type RopeConfig = Pick<ModelConfig, 'headDim' | 'ropeTheta' | 'ropeScaling'>;

/** [headDim / 2] radians a position. */
export function inverseFrequencies({ headDim, ropeTheta, ropeScaling }: RopeConfig): Float32Array {
  const plain = Float32Array.from({ length: headDim / 2 }, (_, i) =>
    Math.pow(ropeTheta, (-2 * i) / headDim),
  );
  if (ropeScaling === null) return plain;
  switch (ropeScaling.type) {
    case 'linear':
      return plain.map((frequency) => frequency / ropeScaling.factor);
    case 'llama3':
      return plain.map((frequency) => llama3(frequency, ropeScaling));
    case 'yarn':
      return yarn(plain, headDim, ropeTheta, ropeScaling);
    case 'dynamic':
      throw new Error(`rope scaling ${ropeScaling.type} is not built`);
  }
}

/** Long waves are stretched by `factor`, short ones kept, and those between interpolated. */
function llama3(frequency: number, scaling: RopeScaling): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < originalMaxPositionEmbeddings / highFreqFactor) return frequency;
  if (wavelength > originalMaxPositionEmbeddings / lowFreqFactor) return frequency / factor;
  const smooth =
    (originalMaxPositionEmbeddings / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

/**
 * Waves that turn more than betaFast times within the original context are kept, those that turn
 * less than betaSlow times stretched by `factor`, and those between blended by their index.
 */
function yarn(
  plain: Float32Array,
  headDim: number,
  theta: number,
  { factor, betaFast, betaSlow, originalMaxPositionEmbeddings }: RopeScaling,
): Float32Array {
  const indexOf = (rotations: number) =>
    (headDim * Math.log(originalMaxPositionEmbeddings / (rotations * 2 * Math.PI))) /
    (2 * Math.log(theta));
  const low = Math.max(0, Math.floor(indexOf(betaFast)));
  const high = Math.min(headDim - 1, Math.ceil(indexOf(betaSlow)));
  const width = high === low ? 0.001 : high - low;
  return plain.map((frequency, i) => {
    const stretched = Math.min(1, Math.max(0, (i - low) / width));
    return (frequency / factor) * stretched + frequency * (1 - stretched);
  });
}
