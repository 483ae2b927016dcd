// Kernels of kernels/cuda that no device is needed for: compiled for the CPU and run in emulated
// blocks (emulated/), where copies and matrix products take place as early or as late as the program
// allows, descriptors and swizzles are decoded by themselves, and a wait for nothing is a failure.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { findCxx } from './cxx.ts';

const folder = join(packageRoot, 'test/kernels/cuda/emulated');

/** Its kernel is in a header. `engine`: or as on sm_80. */
const skinnyFlags = (engine: boolean): string[] => [
  ...(engine ? [] : ['-DVT_HAS_SM_90=0']),
  '-DVT_KERNEL_IN_HEADER',
];

/** The program of the first of `parts`, with these kernels, in a folder of the test's own. */
async function build(
  t: Test,
  parts: readonly string[],
  kernels: readonly string[],
  engine = true,
): Promise<string> {
  const out = mkdtempSync(join(tmpdir(), 'vt-emulated-'));
  t.teardown(() => rmSync(out, { recursive: true }));
  const cxx = await findCxx();
  const flags = [
    ...['-std=c++17', '-O1', '-ffp-contract=off', '-w', `-I${packageRoot}`],
    // Shared memory is thread_local here, and never initialised elsewhere.
    ...(cxx.isGcc ? ['-fno-extern-tls-init'] : []),
  ];
  const compile = (source: string, ...more: string[]): string => {
    const object = join(out, `${source.replaceAll('/', '-')}.o`);
    cxx.compile([...flags, ...more, '-c', source, '-o', object]);
    return object;
  };
  const objects = [
    ...['block', 'memory', 'matrix', ...parts].map((name) => compile(join(folder, `${name}.cc`))),
    ...kernels.map((name) =>
      compile(
        join(packageRoot, `kernels/cuda/${name}.cu`),
        ...['-include', join(folder, 'device.h'), '-x', 'c++'],
        ...(name.startsWith('linear_skinny') ? skinnyFlags(engine) : []),
      ),
    ),
  ];
  const binary = join(out, parts[0]!);
  cxx.compile([...objects, '-o', binary]);
  return binary;
}

const linears = [
  'linear_large',
  'linear_wgmma',
  'linear_decode',
  'linear_skinny_bf16',
  'linear_skinny_late',
];

const skip = process.platform === 'linux' ? false : 'fibers of ucontext.h';

t.test(
  'attention by wgmma and decode have the bits of prefill by mma.sync',
  { skip },
  async (t) => {
    const parts = ['attention_check', 'attention_kernels'];
    const binary = await build(t, parts, ['attention', 'attention_shapes']);
    const run = spawnSync(binary, [], { encoding: 'utf8' });
    t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
    t.equal(run.stdout.match(/^ok /gm)?.length, 29);
  },
);

t.test(
  'linear with wgmma, and for few rows on sm_80, has the bits of mma.sync, fused or not',
  { skip },
  async (t) => {
    const binary = await build(t, ['linear_check'], linears, false);
    const run = spawnSync(binary, [], { encoding: 'utf8' });
    t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
    t.equal(run.stdout.match(/^ok /gm)?.length, 41);
  },
);

t.test('logits for the sampler: the best id of rows that need no more', { skip }, async (t) => {
  const binary = await build(t, ['best_check'], ['linear_large', 'linear_wgmma']);
  const run = spawnSync(binary, [], { encoding: 'utf8' });
  t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  t.equal(run.stdout.match(/^ok /gm)?.length, 6);
});

t.test('linear for few rows has the bits of mma.sync', { skip }, async (t) => {
  const binary = await build(t, ['linear_check'], linears);
  const run = spawnSync(binary, ['few'], { encoding: 'utf8' });
  t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  t.equal(run.stdout.match(/^ok /gm)?.length, 28);
});

t.test(
  'norms and rope of many rows have the bits of few, scales late or not',
  { skip },
  async (t) => {
    const binary = await build(t, ['many_rows_check'], ['rms_norm', 'rope', 'silu_and_mul']);
    const run = spawnSync(binary, [], { encoding: 'utf8' });
    t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
    t.equal(run.stdout.match(/^ok /gm)?.length, 10);
  },
);

t.test('keys are fetched ahead of the attention that reads them', { skip }, async (t) => {
  const kernels = ['attention', 'keys_ahead', 'rms_norm', 'rope', 'silu_and_mul'];
  const run = spawnSync(await build(t, ['keys_ahead_check'], kernels), [], { encoding: 'utf8' });
  t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  t.equal(run.stdout.match(/^ok /gm)?.length, 10);
});

t.test('what the first and the last kernel of a step do', { skip }, async (t) => {
  const binary = await build(
    t,
    ['step_check'],
    ['attention', 'gather', 'host/inputs', 'host/results'],
  );
  const run = spawnSync(binary, [], { encoding: 'utf8' });
  t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  t.equal(run.stdout.match(/^ok /gm)?.length, 4);
});
