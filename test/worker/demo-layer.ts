// One layer of the demo model, and how the tests of programs have it built.
import { readModelConfig } from '../../common/model-config.ts';
import type { BuildOptions } from '../../worker/program/build.ts';

export const demo = { ...readModelConfig('models/demo'), numLayers: 1 };

export const options: BuildOptions = {
  actDtype: 'f32',
  weightDtype: 'bf16',
  kvDtype: 'f32',
  interleave: 0,
  maxNumTokens: 96,
  maxNumLogits: 8,
};
