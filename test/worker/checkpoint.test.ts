// A model folder's weights: one file or shards, nothing outside the folder, exact names and shapes.
import { constants } from 'node:buffer';
import { createHash } from 'node:crypto';
import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readModelConfig } from '../../common/model-config.ts';
import { buildProgram } from '../../worker/program/build.ts';
import { Checkpoint } from '../../worker/weights/checkpoint.ts';
import { dummyWeights } from '../../worker/weights/dummy-weights.ts';
import { checkWeightsFit, loadWeights } from '../../worker/weights/load-weights.ts';
import { widen } from '../../kernels/reference/float-formats.ts';
import { f32File } from './safetensors-file.ts';

const options = {
  actDtype: 'f32',
  weightDtype: 'bf16',
  kvDtype: 'f32',
  interleave: 0,
  maxNumTokens: 8,
  maxNumLogits: 8,
} as const;
const badModel = { exitCode: 65 };

function index(map: Readonly<Record<string, string>>): string {
  return JSON.stringify({ weight_map: map });
}

t.test('a sharded folder', (t) => {
  const folder = t.testdir({
    'model.safetensors.index.json': index({ a: 's-1.safetensors', b: 's-2.safetensors' }),
    's-1.safetensors': Buffer.from(f32File({ a: [2, 3] })),
    's-2.safetensors': Buffer.from(f32File({ b: [4], unlisted: [1] })),
  });
  const checkpoint = Checkpoint.open(folder);
  t.equal(checkpoint.get('a').data.length, 24);
  t.equal(checkpoint.get('b').data.length, 16);
  t.throws(() => checkpoint.get('unlisted'), { ...badModel, message: /tensor unlisted is in no/ });
  t.end();
});

t.test('what an index may not say', (t) => {
  const file = Buffer.from(f32File({ a: [2, 3] }));
  const open = (map: unknown) => () =>
    Checkpoint.open(
      t.testdir({
        inner: {
          'model.safetensors.index.json': JSON.stringify({ weight_map: map }),
          's.safetensors': file,
        },
        'outside.safetensors': file,
      }) + '/inner',
    );
  for (const name of ['../outside.safetensors', '..', '/etc/passwd', 'a/b', '', 5])
    t.throws(open({ a: name }), { ...badModel, message: /a: .* is no plain file name/ });
  t.throws(open([]), /weight_map is not an object/);
  t.throws(open({ a: 'none.safetensors' }), /none.safetensors does not exist/);
  t.throws(open({ b: 's.safetensors' }), /s.safetensors: tensor b is missing; the index has it/);
  t.end();
});

t.test('links stay in the folder, or lead to the blobs of a hub cache', (t) => {
  const file = Buffer.from(f32File({ a: [2, 3] }));
  const root = t.testdir({ 'outside.safetensors': file, model: { 'real.safetensors': file } });
  symlinkSync('../outside.safetensors', join(root, 'model/model.safetensors'));
  t.throws(() => Checkpoint.open(join(root, 'model')), /is a link that leads out/);
  const inner = t.testdir({ model: { 'real.safetensors': file } });
  symlinkSync('real.safetensors', join(inner, 'model/model.safetensors'));
  t.equal(Checkpoint.open(join(inner, 'model')).get('a').data.length, 24);
  const hub = t.testdir({ blobs: { abc: file }, snapshots: { main: {} } });
  symlinkSync('../../blobs/abc', join(hub, 'snapshots/main/model.safetensors'));
  t.equal(Checkpoint.open(join(hub, 'snapshots/main')).get('a').data.length, 24);
  t.end();
});

t.test('a folder without weights, and a file that is a folder', (t) => {
  t.throws(() => Checkpoint.open(t.testdir({})), {
    ...badModel,
    message: /has neither model.safe/,
  });
  const folder = t.testdir({});
  mkdirSync(join(folder, 'model.safetensors'));
  t.throws(() => Checkpoint.open(folder), /is not a file/);
  t.end();
});

t.test('truncated, swapped and wrongly shaped files fail naming file and tensor', (t) => {
  const copy = (name: string) => {
    const folder = t.testdir({});
    cpSync(`test/fixtures/models/${name}`, folder, { recursive: true });
    return folder;
  };
  const load = (folder: string) => () => {
    const program = buildProgram(readModelConfig(folder), options);
    return loadWeights(program, Checkpoint.open(folder));
  };
  t.doesNotThrow(load(copy('qwen3')));

  const truncated = copy('qwen3');
  truncateSync(join(truncated, 'model.safetensors'), 20_000);
  t.throws(load(truncated), {
    ...badModel,
    message: /model.safetensors: tensor model\..* truncated/,
  });

  const empty = copy('qwen3');
  writeFileSync(join(empty, 'model.safetensors'), '');
  t.throws(load(empty), { ...badModel, message: /model.safetensors: 0 bytes/ });

  const swapped = copy('llama3-sharded');
  const shards = readdirSync(swapped).filter((name) => name.startsWith('model-'));
  const [first = '', last = ''] = [shards[0], shards.at(-1)].map((name) => join(swapped, name!));
  renameSync(first, join(swapped, 'spare'));
  renameSync(last, first);
  renameSync(join(swapped, 'spare'), last);
  t.throws(load(swapped), {
    ...badModel,
    message: /safetensors: tensor [\w.]+ is missing; the index/,
  });

  const reshaped = copy('qwen3');
  const configFile = join(reshaped, 'config.json');
  const config = JSON.parse(readFileSync(configFile, 'utf8')) as Record<string, unknown>;
  writeFileSync(configFile, JSON.stringify({ ...config, intermediate_size: 40 }));
  t.throws(load(reshaped), {
    ...badModel,
    message:
      /tensor model.layers.0.mlp.gate_proj.weight is \[48,32\], but config.json makes it \[40,32\]/,
  });

  const deeper = copy('qwen3');
  writeFileSync(join(deeper, 'config.json'), JSON.stringify({ ...config, num_hidden_layers: 3 }));
  t.throws(load(deeper), /tensor model.layers.2.input_layernorm.weight is in no safetensors file/);
  t.end();
});

t.test('a file larger than an ArrayBuffer can be', (t) => {
  const folder = t.testdir({});
  const path = join(folder, 'model.safetensors');
  const large = 5 * 2 ** 30;
  const end = large + 4096;
  const header = JSON.stringify({
    large: { dtype: 'U8', shape: [large], data_offsets: [0, large] },
    a: { dtype: 'F32', shape: [1023], data_offsets: [large, end - 4] },
    b: { dtype: 'F32', shape: [1], data_offsets: [end - 4, end] },
  });
  const start = Buffer.alloc(8 + header.length);
  start.writeBigUInt64LE(BigInt(header.length));
  start.write(header, 8);
  writeFileSync(path, start);
  // The file has a hole where its zeros are.
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.from(Float32Array.of(3.5).buffer), 0, 4, start.length + end - 4);
  closeSync(file);
  const checkpoint = Checkpoint.open(folder);
  t.same(widen('f32', checkpoint.get('b').data), [3.5]);
  t.same(widen('f32', checkpoint.get('a').data), new Float32Array(1023));
  if (constants.MAX_LENGTH < large)
    t.throws(() => checkpoint.get('large'), {
      ...badModel,
      message: /tensor large has 5368709120/,
    });
  else t.equal(checkpoint.get('large').data.length, large);
  t.end();
});

t.test('a tensor of integers is no weight', (t) => {
  const folder = t.testdir({});
  cpSync('test/fixtures/models/qwen3', folder, { recursive: true });
  const file = join(folder, 'model.safetensors');
  writeFileSync(
    file,
    readFileSync(file).toString('latin1').replaceAll('"BF16"', '"I16" '),
    'latin1',
  );
  const program = buildProgram(readModelConfig(folder), options);
  t.throws(
    () => loadWeights(program, Checkpoint.open(folder)),
    /is I16; supported: F32, F16, BF16/,
  );
  t.end();
});

t.test('dummy weights have the shapes of the program and repeat with the seed', (t) => {
  const program = buildProgram(readModelConfig('test/fixtures/models/llama3-sharded'), options);
  const weights = dummyWeights(program, 3);
  program.weights.forEach((weight, i) => {
    const bytes = weights[i]!.reduce((sum, part) => sum + part.data.length, 0);
    const expected = weight.constant ? 0 : weight.shape.reduce((product, n) => product * n, 2);
    t.equal(bytes, expected, weight.name);
  });
  const digest = (parts: typeof weights) =>
    parts
      .flat()
      .reduce((hash, { data }) => hash.update(data), createHash('sha256'))
      .digest('hex');
  const arrays = new Set(weights.flat().map(({ data }) => data.buffer));
  const rowLengths = new Set(program.weights.map(({ shape }) => shape[1] ?? 0));
  t.ok(arrays.size <= rowLengths.size, 'weights are views, not copies');
  t.equal(digest(dummyWeights(program, 3)), digest(weights));
  t.not(digest(dummyWeights(program, 4)), digest(weights));
  const embedding = program.weights.findIndex(({ name }) => name.includes('embed_tokens'));
  const values = widen('bf16', weights[embedding]![0]!.data);
  const variance = values.reduce((sum, x) => sum + x * x, 0) / values.length;
  t.ok(Math.abs(variance * 48 - 1) < 0.1, `variance ${variance} is 1 / K`);
  t.end();
});

t.test('weights larger than the memory are refused before they are made', (t) => {
  const config = readModelConfig('test/fixtures/models/llama3-sharded');
  const large = {
    ...config,
    numHeads: 65_536,
    numKvHeads: 65_536,
    headDim: 65_536,
    hiddenSize: 16,
  };
  const fits = (program: ReturnType<typeof buildProgram>) => () =>
    checkWeightsFit(program, 'model', 2 ** 36);
  t.doesNotThrow(fits(buildProgram(config, options)));
  t.throws(fits(buildProgram(large, options)), {
    ...badModel,
    message:
      /model\/config.json: weights of its shape take \d+ bytes, this machine has 68719476736/,
  });
  t.end();
});
