// Compiles fake_cuda.cc, and a driver's library with nothing in it, into a folder of the test's
// own, and gives the environment in which a process finds both before any real ones.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { cudaDirEnv } from '../../../common/native.ts';
import { packageRoot } from '../../../common/package-root.ts';
import { findCxx } from './cxx.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** `defines` such as -DFAKE_ABI=99. */
export async function fakeLibrary(t: Test, ...defines: string[]): Promise<Environment> {
  const folder = mkdtempSync(join(tmpdir(), 'vt-fake-cuda-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const cxx = await findCxx();
  const compile = (...rest: string[]) => {
    const flags = ['-std=c++17', '-O1', '-fPIC', '-shared', '-pthread', `-I${packageRoot}`];
    cxx.compile([...flags, ...rest]);
  };
  const source = join(packageRoot, 'test/kernels/cuda/fake_cuda.cc');
  compile(source, ...defines, '-o', join(folder, 'libvt_cuda.so'));
  writeFileSync(join(folder, 'driver.cc'), 'int fake_driver;\n');
  compile(join(folder, 'driver.cc'), '-o', join(folder, 'libcuda.so.1'));
  return { ...process.env, LD_LIBRARY_PATH: folder, [cudaDirEnv]: folder };
}
