// Makes a package that compiles nothing where it is installed: what `npm pack` packs, and with it the
// native modules of this machine's target and libvt_cuda.so, if build:cuda has made it.
//
//   npm run package -- OUT_DIR [--library FILE]
//
// --library  libvt_cuda.so (default: the one in build/, if there is one)
//
// It serves where the C library is as new as here; elsewhere the package of `npm pack` compiles its
// modules once. Prints the tarball's path.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readArguments } from './build/arguments.mjs';
import { BuildError, buildNative, nativeTarget } from './build/native.mjs';
import { createReport } from './build/progress.mjs';
import { buildTypescript } from './build/typescript.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const { values: options, positionals } = readArguments('package', import.meta.url, {
  allowPositionals: true,
  options: { library: { type: 'string' } },
});
if (positionals.length !== 1) fail('one OUT_DIR is needed');
const out = resolve(positionals[0]);
const target = nativeTarget();
const built = join(root, 'build', target);
const report = createReport('package: ');
if (options.library !== undefined && !existsSync(options.library))
  fail(`--library ${options.library} does not exist`);

try {
  await buildTypescript({ root, report });
  await buildNative({ root, outDir: built, report });
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`package: ${error.message}`);
  process.exit(1);
}
const stage = mkdtempSync(join(tmpdir(), 'vllm-ts-package-'));
try {
  execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', stage], {
    cwd: root,
    stdio: 'pipe',
  });
  const [packed] = readdirSync(stage);
  execFileSync('tar', ['-C', stage, '-xzf', join(stage, packed)]);
  const prebuilds = join(stage, 'package/prebuilds', target);
  mkdirSync(prebuilds, { recursive: true });
  for (const name of ['kernels.node', 'os.node']) cpSync(join(built, name), join(prebuilds, name));
  const library = options.library ?? join(built, 'libvt_cuda.so');
  const hasCuda = existsSync(library);
  if (hasCuda) cpSync(library, join(prebuilds, 'libvt_cuda.so'));
  else report('without CUDA kernels: npm run build:cuda makes them');
  mkdirSync(out, { recursive: true });
  const tarball = join(out, packed.replace(/\.tgz$/, `-${target}.tgz`));
  execFileSync('tar', ['-C', stage, '-czf', tarball, 'package']);
  console.log(tarball);
} finally {
  rmSync(stage, { recursive: true });
}

function fail(message) {
  console.error(`package: ${message}`);
  process.exit(64);
}
