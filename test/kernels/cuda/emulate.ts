// Compiles kernels of kernels/cuda for the CPU, over emulation/, which runs CUDA's threads as
// fibers in an order drawn from a seed.
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { findCxx } from './cxx.ts';

/** Of kernels/cuda/host, and of kernels. */
const hostSources = [
  'finish.cuh',
  'launch_error.h',
  'results.cu',
  'sample_and_finish.cu',
  'step_arrays.h',
];
const sharedSources = ['check.h', 'step.h'];

/** Those that do not stand in emulation/, which has its own common.cuh and others. */
const sources =
  /^(elementwise\.cuh|group.*|(all_reduce\w*|linear_send|parts|sample\w*)\.cuh?|vt_cuda\w*\.h|error\.h)$/;

/** A program of emulation/ and the kernels that it runs, in a folder of the test's own. */
export async function emulate(t: Test, program: string, kernels: string[]): Promise<string> {
  const root = mkdtempSync(join(tmpdir(), 'vt-emulation-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  const folder = join(root, 'cuda');
  const from = join(packageRoot, 'kernels/cuda');
  for (const name of readdirSync(from).filter((name) => sources.test(name)))
    cpSync(join(from, name), join(folder, name));
  for (const name of hostSources) cpSync(join(from, 'host', name), join(folder, 'host', name));
  for (const name of sharedSources) cpSync(join(from, '..', name), join(root, name));
  const tests = join(packageRoot, 'test/kernels/cuda');
  cpSync(join(tests, 'emulation'), folder, { recursive: true });
  cpSync(join(tests, 'cuda_values.h'), join(folder, 'cuda_values.h'));
  const flags = [
    '-std=c++17',
    '-O1',
    '-ffp-contract=off',
    '-fno-strict-aliasing',
    '-Wno-unknown-pragmas',
  ];
  const args = [...flags, '-I.', program, '-x', 'c++', ...kernels, '-o', 'run'];
  (await findCxx()).compile(args, folder);
  return join(folder, 'run');
}
