// Writes programs of true model shapes as JSON, for check_load.py on a machine without Node, and of
// small ones for sanitize.py: `node dist/test/kernels/cuda/dump-program.js FOLDER` makes one file a
// shape.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ModelConfig } from '../../../common/config.ts';
import { flattenProgram } from '../../../kernels/program.ts';
import { computeFormat } from '../../../worker/compute-format.ts';
import { readModelConfig } from '../../../common/model-config.ts';
import { buildProgram } from '../../../worker/program/build.ts';

const demo = readModelConfig('models/demo');
const llama = { ...demo, architecture: 'LlamaForCausalLM', vocabSize: 128_256 };
const tiny = { ...demo, vocabSize: 2048, hiddenSize: 256, intermediateSize: 512, numLayers: 2 };
const ofLlama = { numHeads: 8, numKvHeads: 2, headDim: 64 };
const ofQwen3 = {
  architecture: 'Qwen3ForCausalLM',
  numHeads: 4,
  numKvHeads: 2,
  headDim: 128,
};
/** For racecheck, which makes kernels a thousand times slower. */
const race = { ...tiny, vocabSize: 1040, numLayers: 1 };
const shapes: Readonly<Record<string, ModelConfig>> = {
  demo,
  'tiny-llama': { ...tiny, ...ofLlama },
  'tiny-qwen3': { ...tiny, ...ofQwen3 },
  'race-llama': { ...race, ...ofLlama },
  'race-qwen3': { ...race, ...ofQwen3 },
  'llama-3.2-1b': {
    ...llama,
    hiddenSize: 2048,
    intermediateSize: 8192,
    numLayers: 16,
    numHeads: 32,
    numKvHeads: 8,
    headDim: 64,
  },
  'llama-3.1-8b': {
    ...llama,
    hiddenSize: 4096,
    intermediateSize: 14_336,
    numLayers: 32,
    numHeads: 32,
    numKvHeads: 8,
    headDim: 128,
    tieWordEmbeddings: false,
  },
  'qwen3-0.6b': {
    ...demo,
    architecture: 'Qwen3ForCausalLM',
    vocabSize: 151_936,
    hiddenSize: 1024,
    intermediateSize: 3072,
    numLayers: 28,
    numHeads: 16,
    numKvHeads: 8,
    headDim: 128,
  },
};

const maxNumSeqs = 256;
const maxNumTokens = 16_384;

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error('usage: dump-program FOLDER');
mkdirSync(folder, { recursive: true });
for (const [name, model] of Object.entries(shapes)) {
  const format = computeFormat({
    device: 'cuda',
    dtype: 'bf16',
    kvCacheDtype: 'auto',
    model,
    blockSize: 16,
    numRanks: 1,
  });
  const program = buildProgram(model, { ...format, maxNumTokens, maxNumLogits: maxNumSeqs });
  const { ops, attrs, buffers, weights: flatWeights, kvGroups } = flattenProgram(program);
  const { vocabSize, arenaBytes, weights } = program;
  writeFileSync(
    join(folder, `${name}.json`),
    JSON.stringify({
      ops: [...ops],
      attrs: [...attrs],
      buffers: [...buffers],
      weights: [...flatWeights],
      kvGroups: [...kvGroups],
      vocabSize,
      arenaBytes,
      maxNumTokens,
      maxNumLogits: maxNumSeqs,
      maxNumSeqs,
      constants: weights.map(({ constant }) => constant && [...constant]),
    }),
  );
}
