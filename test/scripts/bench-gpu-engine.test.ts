// The measurement of the whole engine runs from end to end on a device that computes nothing: rows
// of a shape, of a folder with chat prompts, one that fails, and a table of them all.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { readModelConfig } from '../../common/model-config.ts';
import { shapes, writeRandomWeights, writeShape } from '../../scripts/bench-gpu/shapes.ts';
import { buildProgram } from '../../worker/program/build.ts';
import { Checkpoint } from '../../worker/weights/checkpoint.ts';
import { loadWeights } from '../../worker/weights/load-weights.ts';
import { fakeLibrary } from '../kernels/cuda/fake-library.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';
const folder = mkdtempSync(join(tmpdir(), 'vt-bench-'));
t.teardown(() => rmSync(folder, { recursive: true }));

t.test('bench-gpu-engine', { skip, timeout: 300_000 }, async (t) => {
  const env = await fakeLibrary(t);
  const prompts = join(folder, 'prompts.jsonl');
  const turn = (role: string, text: string) => `<|im_start|>${role}\n${text}<|im_end|>\n`;
  const prompt = `${turn('system', 'Be kind.')}${turn('user', 'Hello!')}<|im_start|>assistant\n`;
  writeFileSync(prompts, `${JSON.stringify({ prompt })}\n`.repeat(3));
  const json = join(folder, 'rows.json');
  const run = (...args: string[]) =>
    spawnSync(
      process.execPath,
      [join(packageRoot, 'dist/scripts/bench-gpu-engine.js'), '--repeats', '1', ...args],
      { encoding: 'utf8', env, cwd: packageRoot },
    );
  const rows = '0.6b-idle,smollm2';
  const files = ['--work', folder, '--json', json];
  const demo = ['--smollm2', 'models/demo', '--prompts', prompts];
  const good = run('--rows', rows, ...files, ...demo);
  t.equal(good.status, 0, good.stdout + good.stderr);
  t.match(good.stdout, /\| idle at batch 256, 0.6B \| 0 \| {2}\| <= 5 % \| [\d.]+ % \| /);
  t.match(good.stdout, /3 prompts, 300 tokens each/, 'a device without EOS runs to the limit');
  const results = JSON.parse(readFileSync(json, 'utf8')) as { id: string; value: number }[];
  t.same(
    results.map(({ id }) => id),
    rows.split(','),
  );

  const partly = run('--rows', rows, ...files);
  t.equal(partly.status, 1, 'a row failed');
  t.match(partly.stdout, /smollm2: failed \(needs --smollm2 FOLDER\)/);
  t.match(partly.stdout, /0.6b-idle: [\d.]+ %/, 'and the other was measured');
  t.equal(run('--rows', 'x').status, 64);
});

t.test('shapes are models that a program can be made of, and random weights load', (t) => {
  for (const name of Object.keys(shapes) as (keyof typeof shapes)[])
    t.ok(readModelConfig(writeShape(folder, name)).numLayers > 0, name);
  const config = { ...shapes['llama-1b'], hidden_size: 64, head_dim: 16, num_attention_heads: 4 };
  const small = { intermediate_size: 96, num_hidden_layers: 2, num_key_value_heads: 2 };
  writeShape(folder, 'llama-1b');
  const source = join(folder, 'llama-1b');
  writeFileSync(
    join(source, 'config.json'),
    JSON.stringify({ ...config, ...small, vocab_size: 300 }),
  );
  t.ok(writeRandomWeights(source) > 2 * 300 * 64, 'larger than its embedding');
  const program = buildProgram(readModelConfig(source), {
    actDtype: 'f32',
    weightDtype: 'bf16',
    kvDtype: 'f32',
    interleave: 0,
    maxNumTokens: 16,
    maxNumLogits: 4,
  });
  const weights = loadWeights(program, Checkpoint.open(source));
  t.equal(weights.length, program.weights.length);
  t.end();
});
