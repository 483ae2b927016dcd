import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { CudaAnswer } from '../../../common/cuda-device.ts';
import type { Logger } from '../../../common/log.ts';
import { packageRoot } from '../../../common/package-root.ts';
import { isLoopback, makeConfig, report } from '../../../frontend/cli/config.ts';
import { baseUrl, curlLine } from '../../../frontend/cli/listen.ts';
import { parseCommandLine } from '../../../frontend/cli/parse.ts';

const demo = join(packageRoot, 'models/demo');
const noCuda: CudaAnswer = { device: null, reason: 'there is no driver' };
const config = (argv: string[], env = {}, cuda: CudaAnswer = noCuda) =>
  makeConfig(parseCommandLine(['serve', ...argv], '0.0.0')!, env, cuda);

/** A model folder of the demo model's small files. */
function modelFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'vt-model-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  for (const file of ['config.json', 'tokenizer.json'])
    cpSync(join(demo, file), join(folder, file));
  return folder;
}

t.test('makeConfig serves the demo model on loopback by default', (t) => {
  const made = config([]);
  t.same(made.names, ['vllm-ts-demo']);
  t.equal(made.host, '127.0.0.1');
  t.match(made, { maxModelLen: 2048, fitModelLen: false });
  for (const asked of ['auto', '-1'])
    t.match(config(['--max-model-len', asked]), { maxModelLen: 2048, fitModelLen: true });
  t.same(made.asyncDepth, { least: 2, most: 8 });
  t.same(config(['--async-depth', '3']).asyncDepth, { least: 3, most: 3 });
  t.throws(() => config(['--max-model-len', '0']), { exitCode: 64, message: /--max-model-len/ });
  t.throws(() => config(['--max-model-len', '2049']), {
    exitCode: 64,
    message: /the model's 2048/,
  });
  t.same(made.apiKeys, []);
  t.same(config([demo]).names, [demo], "another model's name is the path as given");
  t.same(config([demo, '--served-model-name', 'a', 'b']).names, ['a', 'b']);
  for (const flag of ['--served-model-name', '--api-key'])
    t.throws(() => config([flag, 'a', demo]), {
      exitCode: 64,
      message: `${flag} has taken ${demo} for a value of its own: MODEL comes first`,
    });
  for (const flag of ['--served-model-name', '--api-key'])
    for (const model of ['org/name', './x', '~/x', '/a/b', 'x.gguf']) {
      const message = `${flag} has taken what looks like a MODEL for a value of its own`;
      t.throws(() => config([flag, 'a', model]), { exitCode: 64, message });
      t.same(config([flag, model]).flags.port, 8000, 'its only value is one');
      t.same(config([demo, flag, 'a', model]).model.path, demo, 'nor where a MODEL is given');
    }
  t.same(config(['--api-key', 'a', 'cGxl/YXNl+w==']).apiKeys, ['a', 'cGxl/YXNl+w==']);
  t.end();
});

t.test('makeConfig takes the key from the environment unless a flag brings one', (t) => {
  t.same(config([], { VLLM_API_KEY: 'e' }).apiKeys, ['e']);
  t.same(config(['--api-key', 'f'], { VLLM_API_KEY: 'e' }).apiKeys, ['f']);
  t.same(config([], { VLLM_API_KEY: '' }).apiKeys, []);
  t.end();
});

t.test('the end of a text is what the model or its tokenizer calls so', (t) => {
  const folder = modelFolder(t);
  const eos = (tokenizerConfig: object, flags: string[] = []) => {
    writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(tokenizerConfig));
    return config([folder, ...flags]).model.eosTokenIds;
  };
  t.same(eos({}), [2], 'of config.json');
  t.same(eos({ eos_token: null }), [2]);
  t.same(eos({ eos_token: '<|im_end|>' }), [2], 'the same token');
  t.same(eos({ eos_token: '<|endoftext|>' }), [2, 0], 'an added token of tokenizer.json');
  t.same(eos({ eos_token: { content: '!' } }), [2, 3], 'one of the vocabulary');
  const decoder = { 77: { content: '<end>' }, 9000: { content: '<far>' }, 5: null };
  t.same(eos({ eos_token: '<end>', added_tokens_decoder: decoder }), [2, 77]);
  t.same(eos({ eos_token: '<far>', added_tokens_decoder: decoder }), [2], 'not of the model');
  t.same(eos({ eos_token: 'no such token' }), [2]);
  t.same(eos({ eos_token: '<|endoftext|>' }, ['--tokenizer', demo]), [2], 'of --tokenizer');
  t.end();
});

t.test('makeConfig reads sampling defaults', (t) => {
  const folder = modelFolder(t);
  const write = (content: object) => {
    writeFileSync(join(folder, 'generation_config.json'), JSON.stringify(content));
  };
  t.same(config([folder]).defaultSampling, {}, 'a model need not have them');
  write({ temperature: 0.6, top_k: -1, top_p: 0.95, max_new_tokens: 7, do_sample: true });
  const fromFile = { temperature: 0.6, topK: 0, topP: 0.95, maxTokens: 7 };
  t.same(config([folder]).defaultSampling, fromFile);
  t.same(config([folder, '--generation-config', 'vllm']).defaultSampling, {});
  t.same(config(['--generation-config', folder]).defaultSampling, fromFile);
  const override = ['--override-generation-config', '{"temperature": 1.5}'];
  t.same(config([folder, ...override]).defaultSampling, { ...fromFile, temperature: 1.5 });
  write({ top_p: 2 });
  t.throws(() => config([folder]), { exitCode: 65, message: /generation_config.json: top_p must/ });
  t.end();
});

t.test('an operator is told of defaults and of an open door', (t) => {
  const said = (argv: string[], env = {}) => {
    const lines: unknown[][] = [];
    const keep = (...words: unknown[]) => lines.push(words);
    report(config(argv, env), { info: keep, warn: keep } as unknown as Logger);
    return lines.map((words) => words.map((word) => JSON.stringify(word)).join(' '));
  };
  const running = '"running on cpu: there is no driver"';
  const defaults =
    '{"temperature":0.7,"topP":0.95} "sampling defaults of generation_config.json and flags"';
  t.same(said([]), [running, defaults]);
  t.same(said(['--generation-config', 'vllm']), [running]);
  const open = '"anybody who reaches 0.0.0.0 can use this server: there is no --api-key"';
  const all = ['--host', '0.0.0.0'];
  t.same(said(all), [running, open, defaults]);
  t.same(said(all, { VLLM_API_KEY: 'k' }), [running, defaults]);
  t.same(said([...all, '--api-key', 'k']), [running, defaults]);
  t.same(said(['--uds', '/tmp/s']), [running, defaults]);
  t.end();
});

t.test('makeConfig names what is wrong with a model', (t) => {
  t.throws(() => config(['org/name']), {
    exitCode: 65,
    message: /org\/name is not a folder.* hf download org\/name --local-dir/,
  });
  const folder = modelFolder(t);
  rmSync(join(folder, 'tokenizer.json'));
  t.throws(() => config([folder]), { exitCode: 65, message: /tokenizer.json is missing/ });
  t.equal(config([folder, '--tokenizer', demo]).tokenizerPath, demo);
  writeFileSync(join(folder, 'config.json'), '{');
  t.throws(() => config([folder]), { exitCode: 65, message: /config.json/ });
  // What cannot be looked at (here a link to itself) is named, and what is below a file is not there.
  rmSync(join(folder, 'config.json'));
  symlinkSync('config.json', join(folder, 'config.json'));
  t.throws(() => config([folder]), { exitCode: 65, message: /config.json: ELOOP/ });
  t.throws(() => config([join(demo, 'config.json', 'x')]), {
    exitCode: 65,
    message: /x is not a folder/,
  });
  t.end();
});

t.test('--chat-template takes the text of a template, longer than any path', (t) => {
  const text = '{% for message in messages %}{{ message.content }}{% endfor %}'.repeat(100);
  t.same(config(['--chat-template', text]).chatTemplate, { text });
  t.end();
});

const loopFolder = mkdtempSync(join(tmpdir(), 'vt-loop-'));
const loop = join(loopFolder, 'loop');
symlinkSync('loop', loop);
t.teardown(() => {
  rmSync(loopFolder, { recursive: true });
});

const bad: readonly (readonly [argv: string[], message: RegExp])[] = [
  [['--max-model-len', '4k'], /--max-model-len: 4000 is more than the model's 2048/],
  [
    ['--max-num-batched-tokens', '1000000'],
    /^--max-logprobs 20: with --max-num-batched-tokens 1000000 a step carries 15 a token/,
  ],
  [
    ['--max-num-batched-tokens', '100M'],
    /^--max-num-batched-tokens: 104857600 is more than a step can carry, at most 16777216$/,
  ],
  [['--ssl-keyfile', 'x'], /go together/],
  [['--fast-math'], /--fast-math is not built on cpu/],
  [['--device', 'cuda'], /--device cuda: there is no driver/],
  [['--block-size', '24'], /--block-size: 24 is not a multiple of 16/],
  [['--uds', '/x', '--host', '::1'], /exclude each other/],
  [['--headless'], /--frontend-address/],
  [['--root-path', 'x'], /--root-path: x/],
  [['--chat-template', 'nowhere.jinja'], /neither a file nor a template/],
  [
    ['--generation-config', '/nowhere'],
    /^--generation-config: \/nowhere\/generation_config.json does not exist$/,
  ],
  [['--override-generation-config', '{"temprature": 1}'], /temprature is not one of/],
  [['--chat-template', 'x'.repeat(5000)], /^--chat-template: x+: ENAMETOOLONG/],
  [['--chat-template', 'a\0b'], /^--chat-template: .*null bytes/],
  [['--chat-template', loop], /^--chat-template: .*loop: ELOOP/],
  [['--api-key', 'a b'], /^--api-key: a key must be of ASCII characters without spaces$/],
  [['--api-key', 'good', 'schlüssel'], /--api-key/],
];
for (const [argv, message] of bad)
  t.test(`makeConfig refuses ${JSON.stringify(argv).slice(0, 80)}`, (t) => {
    t.throws(() => config(argv), { exitCode: 64, message });
    t.end();
  });

t.test('a bad key of the environment is said to be that', (t) => {
  t.throws(() => config([], { VLLM_API_KEY: 'a b' }), { exitCode: 64, message: /^VLLM_API_KEY: / });
  const both = () => config(['--api-key', 'a b'], { VLLM_API_KEY: 'good' });
  t.throws(both, { exitCode: 64, message: /^--api-key: / });
  t.end();
});

const gpu = (gib: number): CudaAnswer => ({
  device: {
    name: 'NVIDIA X',
    computeMajor: 9,
    computeMinor: 0,
    driverVersion: 13000,
    totalBytes: gib * 2 ** 30,
  },
});

t.test('makeConfig takes the GPU where there is one, with its defaults', (t) => {
  const sizes = (answer: CudaAnswer, ...argv: string[]) => {
    const { device, maxNumSeqs, maxNumBatchedTokens } = config(argv, {}, answer);
    return [device, maxNumSeqs, maxNumBatchedTokens];
  };
  t.same(sizes(noCuda), ['cpu', 256, 2048]);
  t.same(sizes(gpu(79.1)), ['cuda', 1024, 8192]);
  t.same(sizes(gpu(24)), ['cuda', 256, 2048]);
  t.same(sizes(gpu(180)), ['cuda', 1024, 16_384]);
  t.same(sizes(gpu(79.1), '--max-num-seqs', '8', '--max-num-batched-tokens', '64'), [
    'cuda',
    8,
    64,
  ]);
  t.same(sizes(gpu(79.1), '--device', 'cpu'), ['cpu', 256, 2048]);
  t.equal(config([]).noCudaReason, 'there is no driver', 'auto says why it is not cuda');
  t.equal(config([], {}, gpu(79.1)).noCudaReason, null);
  t.equal(config(['--fast-math'], {}, gpu(79.1)).device, 'cuda');
  t.match(config(['--max-model-len', 'auto'], {}, gpu(79.1)), {
    device: 'cuda',
    fitModelLen: true,
  });
  t.end();
});

t.test('makeConfig leaves every running request a token in a step', (t) => {
  const sizes = (...argv: string[]) => {
    const { maxNumSeqs, maxNumBatchedTokens } = config(argv);
    return [maxNumSeqs, maxNumBatchedTokens];
  };
  t.same(sizes('--max-num-batched-tokens', '64'), [64, 64], 'a default gives way to the flag');
  t.same(sizes('--max-num-seqs', '4096'), [4096, 4096]);
  t.throws(() => config(['--max-num-seqs', '8', '--max-num-batched-tokens', '7']), {
    exitCode: 64,
    message: '--max-num-batched-tokens: 7 is less than --max-num-seqs 8',
  });
  t.end();
});

t.test('makeConfig takes the numbers of ranks that the model divides by, on cpu and cuda', (t) => {
  t.equal(config(['-tp', '4']).flags.tensorParallelSize, 4);
  const refused = (argv: string[], message: RegExp, cuda?: CudaAnswer) =>
    t.throws(() => config(argv, {}, cuda), { exitCode: 64, message });
  refused(['-tp', '3'], /^--tensor-parallel-size 3: the model's 4 attention heads do not divide/);
  refused(
    ['-tp', '2', '--device', 'reference'],
    /2 is not built on reference; supported: cpu, cuda/,
  );
  t.equal(config(['-tp', '2'], {}, gpu(80)).device, 'cuda', 'ranks look for their GPUs themselves');
  t.end();
});

t.test('baseUrl and curlLine are what a user can type', (t) => {
  t.equal(baseUrl(config(['--host', '::1']), 7), 'http://[::1]:7');
  t.equal(baseUrl(config(['--host', '0.0.0.0']), 7), 'http://localhost:7');
  const line = curlLine(config(['--uds', '/tmp/s', '--api-key', 'secret']), 0);
  t.match(line, /--unix-socket '\/tmp\/s' http:\/\/localhost\/v1\/completions/);
  t.notMatch(line, /secret/);
  t.end();
});

t.test('isLoopback knows loopback addresses', (t) => {
  for (const host of ['127.0.0.1', '127.1.2.3', 'localhost', '::1']) t.ok(isLoopback(host), host);
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.0.0.1.example.com'])
    t.notOk(isLoopback(host), host);
  t.end();
});
