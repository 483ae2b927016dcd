// Compiles the native modules (kernels.node, os.node) with the C++ compiler alone: headers come
// from npm packages, there is no node-gyp and no CMake. Each CPU variant is the same source
// compiled once more with its own flags; one whose flags the compiler refuses is left out by name.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { hashOf, listFiles } from './hash.mjs';
import { withLock } from './lock.mjs';

/** Variants by architecture, besides `portable`, which every architecture has. */
const cpuVariants = {
  x64: {
    avx2: ['-mavx2', '-mfma', '-mf16c'],
    avx512: ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx2', '-mfma', '-mf16c'],
  },
};

const modules = {
  kernels: { sources: ['kernels/addon', 'kernels/cpu', 'kernels/host'], variants: 'kernels/cpu/variants' },
  os: { sources: ['common/os'], variants: null },
};

export class BuildError extends Error {}

export function nativeTarget({ platform, arch } = process) {
  if (platform !== 'linux') return `${platform}-${arch}`;
  const glibc = 'glibcVersionRuntime' in process.report.getReport().header;
  return `${platform}-${arch}-${glibc ? 'glibc' : 'musl'}`;
}

/** The C++ compiler: $CXX, else the first of c++, g++, clang++ that runs. */
export function findCompiler() {
  const wanted = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++'];
  for (const command of wanted) {
    const [program, ...args] = command.split(/\s+/);
    const run = spawnSync(program, [...args, '--version'], { encoding: 'utf8' });
    if (run.status === 0) return { program, args, version: run.stdout.trim() };
  }
  throw new BuildError(
    process.env.CXX
      ? `the C++ compiler named by CXX does not run: ${process.env.CXX}`
      : 'no C++ compiler found: install one (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install)',
  );
}

function headerFolders(root) {
  const require = createRequire(join(root, 'package.json'));
  return [
    require('node-api-headers').include_dir,
    dirname(require.resolve('node-addon-api/package.json')),
  ];
}

const commonFlags = [
  '-std=c++17', '-O3', '-g0', '-fPIC', '-pthread', '-fvisibility=hidden', '-ffp-contract=off',
  '-Wall', '-Wextra', '-DNAPI_VERSION=9', '-DNAPI_CPP_EXCEPTIONS',
  '-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS', '-DBUILDING_NODE_EXTENSION',
]; // prettier-ignore

/** Which variants of this architecture the compiler accepts; the others are named. */
function probeVariants(compiler, arch, report) {
  const accepted = {};
  for (const [name, flags] of Object.entries(cpuVariants[arch] ?? {})) {
    const probe = spawnSync(
      compiler.program,
      [...compiler.args, ...flags, '-x', 'c++', '-c', '-', '-o', '/dev/null'],
      { input: 'int main() { return 0; }', stdio: ['pipe', 'ignore', 'ignore'] },
    );
    if (probe.status === 0) accepted[name] = flags;
    else report(`variant ${name} is left out: the compiler refuses ${flags.join(' ')}`);
  }
  return accepted;
}

/** Every translation unit of a module: source, flags, object name. */
function units(root, name, variants) {
  const { sources, variants: variantFolder } = modules[name];
  const isVariant = (file) => variantFolder !== null && file.startsWith(`${variantFolder}/`);
  const have = Object.keys(variants).map((variant) => `-DVT_HAVE_${variant.toUpperCase()}=1`);
  const list = sources
    .flatMap((folder) => listFiles(root, folder, ['.cc']))
    .filter((file) => !isVariant(file))
    .map((source) => ({ source, flags: have, object: `${source.replaceAll('/', '-')}.o` }));
  if (variantFolder === null) return list;
  for (const [variant, flags] of Object.entries({ portable: [], ...variants }))
    for (const source of listFiles(root, variantFolder, ['.cc']))
      list.push({
        source,
        flags: [...flags, `-DVT_VARIANT=${variant}`, `-DVT_VARIANT_${variant.toUpperCase()}=1`],
        object: `${source.replaceAll('/', '-')}.${variant}.o`,
      });
  return list;
}

/** Builds what is stale into `outDir`. Returns the names of the modules that were built. */
export async function buildNative({ root, outDir = join(root, 'build', nativeTarget()), report = () => {} }) {
  const compiler = findCompiler();
  return await withLock(join(outDir, '.lock'), async () => {
    const built = [];
    const variants = probeVariants(compiler, process.arch, report);
    for (const name of Object.keys(modules)) if (await buildModule(name, variants)) built.push(name);
    return built;
  });

  async function buildModule(name, variants) {
    const list = units(root, name, variants);
    if (list.length === 0) return false;
    const folders = [...modules[name].sources, 'kernels'];
    const inputs = [...new Set(folders.flatMap((folder) => listFiles(root, folder, ['.cc', '.h'])))]
      .filter((file) => !file.startsWith('kernels/cuda/host/'));
    const text = JSON.stringify([commonFlags, list, compiler.program, compiler.version]);
    const hash = hashOf(root, inputs, [text]);
    const stamp = join(outDir, `${name}.hash`);
    const output = join(outDir, `${name}.node`);
    if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return false;

    const objects = join(outDir, 'obj', name);
    mkdirSync(objects, { recursive: true });
    const includes = [...headerFolders(root), root, join(root, 'kernels')].map((folder) => `-I${folder}`);
    const headers = inputs.filter((file) => file.endsWith('.h'));
    const pending = list.filter((unit) => {
      unit.hash = hashOf(root, [unit.source, ...headers], [text]);
      const stamp = join(objects, `${unit.object}.hash`);
      const object = join(objects, unit.object);
      return !(existsSync(object) && existsSync(stamp) && readFileSync(stamp, 'utf8') === unit.hash);
    });
    const workers = Array.from({ length: Math.min(availableParallelism(), 8) }, async () => {
      for (let unit = pending.shift(); unit; unit = pending.shift()) {
        report(`compile ${unit.source}${unit.object.endsWith('.cc.o') ? '' : ` (${unit.object.split('.').at(-2)})`}`);
        const object = join(objects, unit.object);
        await run(compiler, [
          ...commonFlags, ...unit.flags, ...includes, '-c', join(root, unit.source), '-o', object,
        ]); // prettier-ignore
        writeFileSync(`${object}.hash`, unit.hash);
      }
    });
    await Promise.all(workers);
    const link = process.platform === 'darwin' ? ['-bundle', '-undefined', 'dynamic_lookup'] : ['-shared', '-ldl'];
    // A process may have the old file mapped: write beside it, then rename.
    const fresh = `${output}.${process.pid}`;
    await run(compiler, [
      '-pthread', ...list.map((unit) => join(objects, unit.object)), ...link, '-o', fresh,
    ]); // prettier-ignore
    renameSync(fresh, output);
    writeFileSync(stamp, hash);
    report(`built ${basename(output)}`);
    return true;
  }
}

function run(compiler, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler.program, [...compiler.args, ...args], {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, TMPDIR: tmpdir() },
    });
    child.on('error', reject);
    child.on('exit', (code) => {
      if (code === 0) resolve();
      else reject(new BuildError(`${compiler.program} failed on ${args.at(-3)}`));
    });
  });
}
