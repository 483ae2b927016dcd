// The collectives of kernels/cuda without a GPU: their sources compiled for the CPU over
// emulation/, which runs CUDA's threads as fibers in an order drawn from a seed. Random calls on
// 2 to 8 ranks give the sum in rank order, bit for bit, with nothing read late; a rank that does
// not come is named. Weak memory and speed are the business of check_collective.py, on GPUs.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import { packageRoot } from '../../../common/package-root.ts';

interface Compiler {
  readonly program: string;
  readonly args: readonly string[];
}

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';
/** Those that do not stand in emulation/, which has its own common.cuh and others. */
const sources = /^(elementwise\.cuh|group.*|all_\w+\.cuh?|vt_cuda(_collective)?\.h|error\.h)$/;

/** The program, compiled in a folder of the test's own. */
async function build(t: Test): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'vt-collectives-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const kernels = join(packageRoot, 'kernels/cuda');
  for (const name of readdirSync(kernels).filter((name) => sources.test(name)))
    cpSync(join(kernels, name), join(folder, name));
  cpSync(join(packageRoot, 'test/kernels/cuda/emulation'), folder, { recursive: true });
  const native = (await import(
    pathToFileURL(join(packageRoot, 'scripts/build/compiler.mjs')).href
  )) as { findCompiler(): Compiler };
  const { program, args } = native.findCompiler();
  const flags = ['-std=c++17', '-O1', '-ffp-contract=off', '-Wno-unknown-pragmas', '-I.'];
  const files = ['run_collectives.cc', '-x', 'c++', 'all_reduce.cu', 'all_gather.cu', 'group.cu'];
  const run = spawnSync(program, [...args, ...flags, ...files, '-o', 'run'], {
    cwd: folder,
    encoding: 'utf8',
  });
  if (run.status !== 0) throw new Error(run.stderr);
  return join(folder, 'run');
}

t.test('collectives over fibers', { skip }, async (t) => {
  t.setTimeout(600_000);
  const program = await build(t);
  const check = (seed: number, what: string, wanted: RegExp) => {
    const { stdout, stderr, status } = spawnSync(program, [String(seed), what], {
      encoding: 'utf8',
    });
    t.match(stdout, wanted, `seed ${seed}: ${stdout}${stderr}`);
    t.equal(status, 0);
  };
  for (let seed = 1; seed <= 9; seed++) check(seed, '18', /^18 calls on \d ranks: 0 wrong\n$/);
  for (let seed = 1; seed <= 3; seed++)
    check(seed, 'fault', /^rank \d of \d was missed in call 3\n$/);
});
