// The addon's CudaBackend and kernels/cuda-backend.ts over a library that computes nothing: load,
// steps in order, failures with op and step, buffers, close; and a whole server on such a device.
// What the real library computes is tested on a GPU.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { readModelConfig } from '../../../common/model-config.ts';
import { flattenProgram } from '../../../kernels/program.ts';
import { buildProgram } from '../../../worker/program/build.ts';
import { demoFolder } from '../demo-backend.ts';
import { meetingHost } from '../rank-group.ts';
import { fakeLibrary, type Environment } from './fake-library.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';

function run(env: Environment, what: string, fault = ''): unknown {
  const script = join(packageRoot, 'dist/test/kernels/cuda/fake-run.js');
  const child = spawnSync(process.execPath, [script, what], {
    encoding: 'utf8',
    env: { ...env, FAKE_CUDA: fault },
    timeout: 120_000,
  });
  if (child.status !== 0) throw new Error(`${what}: ${child.signal ?? ''} ${child.stderr}`);
  return JSON.parse(child.stdout);
}

const config = readModelConfig(demoFolder);
const program = buildProgram(config, {
  actDtype: 'bf16',
  weightDtype: 'bf16',
  kvDtype: 'bf16',
  interleave: 0,
  maxNumTokens: 512,
  maxNumLogits: 32,
});
const numOpWords = flattenProgram(program).ops.length;
const numParts = program.weights.reduce((sum, { sources }) => sum + sources.length, 1);

t.test('a device is found, or a line says why not', { skip }, async (t) => {
  const env = await fakeLibrary(t);
  const device = { name: 'Fake GPU', computeMajor: 9, computeMinor: 0, driverVersion: 13000 };
  t.same(run(env, 'device'), { device: { ...device, totalBytes: 80 * 2 ** 30 } });
  const reason = 'no CUDA device is visible';
  t.same(run(env, 'device', 'no device'), { device: null, reason });
  const old = await fakeLibrary(t, '-DFAKE_ABI=99');
  t.match(run(old, 'device'), { device: null, reason: /has ABI 99, but this build needs \d+/ });
  const partial = await fakeLibrary(t, '-Dvt_cuda_backend_wait=something_else');
  t.match(run(partial, 'device'), { reason: /vt_cuda_backend_wait is missing/ });
});

t.test(
  'load hands down program, weights and sizes, and up what was decided',
  { skip },
  async (t) => {
    const env = { ...(await fakeLibrary(t)), VLLM_TS_CUDA_LIBS: '/a:/b' };
    const weights = program.weights.reduce(
      (sum, { shape, constant }) => sum + shape.reduce((a, b) => a * b, 1) * (constant ? 4 : 2),
      0,
    );
    t.same(run(env, 'load'), {
      device: `cuda (Fake GPU, ${numOpWords} ops' words, seed -1)`,
      memory: { weights, parts: numParts },
      numBlocks: 1 + 32 * 64,
      notes: ['kv 0 bytes or 0.50', "libraries in '/a:/b'", '0 parts made up'],
    });
    t.match(
      run(env, 'dummy'),
      {
        device: /seed 11\)/,
        memory: { parts: numParts, weights: 128 },
        notes: ['kv 4096 bytes or 1.00, eager, fitted', /./, `${numParts - 1} parts made up`],
      },
      'only constants have bytes',
    );
    t.match(run(env, 'blocks'), { notes: [`kv ${10 * 8 * 2 * 2 * 16 * 64 * 2} bytes or 1.00`] });
    t.match(run(env, 'load', 'load'), { name: 'KernelError', message: 'out of memory: weights' });
  },
);

t.test('steps are reported in order, with their columns and times', { skip }, async (t) => {
  const env = await fakeLibrary(t);
  t.match(run(env, 'steps'), {
    position: { step: 3, opIndex: 3 },
    steps: [1, 2, 3].map((step) => ({
      ...{ step, hash: 7, startUs: step * 100, endUs: step * 100 + 90 },
      deviceIdleUs: 10,
      columns: { tokenId: { 0: 5 + step, 1: 5 }, rowFlags: { 0: 0, 1: 0 }, topIds: {} },
    })),
  });
});

t.test(
  'a failure is reported once, with its step and op; then steps are refused',
  { skip },
  async (t) => {
    const env = await fakeLibrary(t);
    const message = 'an illegal memory access was encountered';
    const after = {
      name: 'KernelError',
      message: `the backend has failed and takes no more steps: ${message} (linear, step 2)`,
      op: null,
      step: null,
    };
    const error = { name: 'KernelError', message, op: 'linear', step: 2 };
    t.same(run(env, 'fault', 'step 2'), { numSteps: 1, errors: [error], after });
    const blamed = { ...error, rank: 1 };
    const wanted = { numSteps: 1, errors: [blamed], after };
    t.same(run(env, 'fault of a rank', 'step 2'), wanted, 'with the rank that is to blame');
  },
);

t.test('a rank is told which it is of how many', { skip }, async (t) => {
  const env = await fakeLibrary(t);
  t.match(run(env, 'ranks'), {
    device: 'cuda (Fake GPU 1 of 2, 2000 ms)',
    notes: ['collectives auto: 1 of 2 on this host, at /nowhere/ranks, tokens 0'],
  });
  const nccl = { ...env, VLLM_TS_CUDA_COLLECTIVES: 'nccl' };
  t.match(run(nccl, 'hosts'), {
    device: 'cuda (Fake GPU 1 of 2, 2000 ms)',
    notes: ['collectives nccl: 0 of 1 on this host, at 10.0.0.2:29504, tokens 77'],
  });
  t.match(run({ ...env, VLLM_TS_CUDA_COLLECTIVES: 'mpi' }, 'ranks'), {
    message: "VLLM_TS_CUDA_COLLECTIVES: 'mpi' is not one of auto, peer, nccl",
  });
});

t.test('buffers go down and up; a close while loading rejects the load', { skip }, async (t) => {
  const env = await fakeLibrary(t);
  t.same(run(env, 'buffer'), [1, 2, 65_535, 0]);
  t.match(run(env, 'early close'), { name: 'KernelError', message: 'the backend was closed' });
});

t.test(
  '--device auto serves on the device, and --device cuda without one is an error',
  { skip },
  async (t) => {
    const env = await fakeLibrary(t);
    const url = await serve(t, env);
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'Once', max_tokens: 3, ignore_eos: true, logprobs: null }),
    });
    const answer = (await response.json()) as { usage: { completion_tokens: number } };
    t.equal(answer.usage.completion_tokens, 3);
    const memory = await (await fetch(`${url}/memory`)).text();
    t.match(memory, /"parts":/, 'GET /memory shows what the backend said');

    const refused = spawnSync(process.execPath, [cli, 'serve', '--device', 'cuda'], {
      encoding: 'utf8',
      env: { ...env, FAKE_CUDA: 'no device' },
    });
    t.equal(refused.status, 64);
    t.equal(refused.stderr, 'vllm-ts: --device cuda: no CUDA device is visible\n');
  },
);

t.test('several ranks serve, each with a GPU of its own', { skip }, async (t) => {
  const env = await fakeLibrary(t);
  const url = await serve(t, env, ['--tensor-parallel-size', '2', '--device', 'cuda']);
  t.equal(await numTokensOf(url), 4, 'two workers, each with a device of its own');
});

t.test('and so they do on two hosts, as the first of their host', { skip }, async (t) => {
  const env = {
    ...(await fakeLibrary(t)),
    VLLM_TS_NODE_KEY: 'a key that both nodes have',
    VLLM_LOGGING_LEVEL: 'INFO',
  };
  const [head, node] = [meetingHost(), meetingHost()];
  const flags = ['--tensor-parallel-size', '2', '--device', 'cuda', '--nnodes', '2'];
  const hosts = [...flags, '--master-addr', head];
  const notes: string[] = [];
  const listen = (child: ChildProcess) =>
    createInterface(child.stderr!).on('line', (line) => {
      if (line.includes('collectives')) notes.push(line);
    });
  const started = serve(t, { ...env, VLLM_HOST_IP: head }, hosts, listen);
  const args = [...hosts, '--node-rank', '1', '--headless'];
  const other = spawn(process.execPath, [cli, 'serve', ...args], {
    env: { ...env, VLLM_HOST_IP: node },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const gone = once(other, 'exit');
  t.teardown(async () => {
    other.kill('SIGKILL');
    await gone;
  });
  listen(other);
  t.equal(await numTokensOf(await started), 4);
  const from = `collectives auto: 0 of 1 on this host, at ${node}:29504`;
  t.equal(notes.filter((line) => line.includes(from)).length, 2, notes.join('\n'));
});

async function numTokensOf(url: string): Promise<number> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'Once', max_tokens: 4, ignore_eos: true }),
  });
  const answer = (await response.json()) as { usage: { completion_tokens: number } };
  return answer.usage.completion_tokens;
}

const cli = join(packageRoot, 'scripts/vllm-ts.mjs');

/** The server's address, once it is ready on the fake device. */
async function serve(
  t: Test,
  env: Environment,
  flags: string[] = [],
  listen: (child: ChildProcess) => unknown = ({ stderr }) => stderr!.pipe(process.stderr),
): Promise<string> {
  const child = spawn(process.execPath, [cli, 'serve', '--port', '0', ...flags], {
    env: { ...env, FAKE_CUDA: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  listen(child);
  t.teardown(async () => {
    child.kill('SIGINT');
    await once(child, 'exit');
  });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  t.match(line, /dtype=bf16 device="(2 x )?cuda \(Fake GPU/);
  return /url=(\S+)/.exec(line)![1]!;
}
