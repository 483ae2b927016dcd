// Rope scaling, from config.json to frequencies, against transformers.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { readModelConfig } from '../../common/model-config.ts';
import { inverseFrequencies } from '../../worker/layers/rope.ts';

const demo = JSON.parse(readFileSync('models/demo/config.json', 'utf8')) as Record<string, unknown>;
const golden = JSON.parse(readFileSync('test/fixtures/ops/rope-scaling.json', 'utf8')) as Record<
  string,
  number[]
>;

// As in test/fixtures/make-op-fixtures.py.
const parameters: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  linear: { rope_type: 'linear', factor: 4, rope_theta: 1e4 },
  llama3: {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
    rope_theta: 5e5,
  },
  yarn: {
    rope_type: 'yarn',
    factor: 4,
    original_max_position_embeddings: 32768,
    rope_theta: 1e6,
  },
};

for (const name in parameters)
  t.test(`${name}: factor and frequencies of transformers`, (t) => {
    const config = {
      ...demo,
      head_dim: 128,
      max_position_embeddings: 131072,
      rope_parameters: parameters[name],
    };
    const model = readModelConfig(t.testdir({ 'config.json': JSON.stringify(config) }));
    const [factor = 0, ...expected] = golden[name]!;
    t.ok(Math.abs(model.ropeScaling!.attentionFactor - factor) < 1e-12);
    const actual = inverseFrequencies(model);
    t.equal(actual.length, expected.length);
    const errors = expected.map((x, i) => Math.abs(actual[i]! / x - 1));
    t.ok(Math.max(...errors) < 1e-6, `worst relative error ${Math.max(...errors)}`);
    t.end();
  });
