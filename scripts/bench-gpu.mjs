// Everything that is measured on a GPU, in one command: builds (in a checkout), checks kernels and
// engine, times both, and prints the tables of docs/benchmarks.md. A part that fails is named at the
// end, and the others are run all the same.
//
//   node scripts/bench-gpu.mjs [--skip build,kernels,engine-check,engine] [--python python3] [-- ARGS]
//
// ARGS go to bench-gpu-engine.js. Kernels and checks need torch and transformers in that Python.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readArguments } from './build/arguments.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const split = process.argv.indexOf('--');
const own = process.argv.slice(2, split < 0 ? undefined : split);
const engineArgs = split < 0 ? [] : process.argv.slice(split + 1);
const { values: options } = readArguments('bench-gpu', import.meta.url, {
  args: own,
  options: {
    skip: { type: 'string', default: '' },
    python: { type: 'string', default: 'python3' },
  },
});

const node = (...args) => [process.execPath, ...args];
const script = (name) => join(root, 'scripts', name);
const isCheckout = existsSync(join(root, 'tsconfig.json'));

const parts = {
  build: () => (isCheckout ? [node(script('build.mjs')), node(script('build-cuda.mjs'))] : []),
  kernels: () => [[options.python, script('bench-gpu.py'), '--library', library()]],
  'engine-check': () => [
    [
      options.python,
      script('check-gpu.py'),
      '--node',
      process.execPath,
      '--model',
      join(root, 'models/demo'),
    ],
  ],
  engine: () => [node(join(root, 'dist/scripts/bench-gpu-engine.js'), ...engineArgs)],
};
const skipped = options.skip.split(',').filter(Boolean);
const unknown = skipped.find((name) => !Object.hasOwn(parts, name));
if (unknown !== undefined) {
  console.error(`bench-gpu: no part ${unknown}; there are ${Object.keys(parts).join(', ')}`);
  process.exit(64);
}

/** The library that the addon would open. */
function library() {
  for (const folder of ['build', 'prebuilds'].map((name) => join(root, name)))
    for (const target of existsSync(folder) ? readdirSync(folder) : []) {
      const file = join(folder, target, 'libvt_cuda.so');
      if (existsSync(file)) return file;
    }
  return 'libvt_cuda.so';
}

const failed = [];
for (const [name, commands] of Object.entries(parts)) {
  if (skipped.includes(name)) continue;
  const start = performance.now();
  console.log(`\n== ${name}`);
  for (const [program, ...args] of commands()) {
    const run = spawnSync(program, args, { cwd: root, stdio: 'inherit' });
    if (run.error) console.error(`bench-gpu: ${program} cannot be run: ${run.error.code}`);
    if (run.status !== 0 && !failed.includes(name)) failed.push(name);
  }
  console.log(`== ${name}: ${((performance.now() - start) / 1000).toFixed(0)} s`);
}
console.log(failed.length === 0 ? '\nall parts ran' : `\nfailed: ${failed.join(', ')}`);
process.exit(failed.length === 0 ? 0 : 1);
