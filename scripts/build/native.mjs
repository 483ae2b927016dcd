// Compiles the native modules (kernels.node, os.node) with the C++ compiler alone: headers come
// from npm packages, there is no node-gyp and no CMake. Each CPU variant is the same source
// compiled once more with its own flags; one whose flags the compiler refuses is left out by name.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { BuildError, findCompiler, lookAtCompiler, probeVariants } from './compiler.mjs';
import { hashOf, listFiles, withHeaders } from './hash.mjs';
import { withLock } from './lock.mjs';
import { inParallel } from './parallel.mjs';
import { isAsSeen, keepLook, lookAt } from './seen.mjs';

export { BuildError } from './compiler.mjs';

/** Module -> folders of its sources, and the one that is compiled for every variant. */
export const modules = {
  kernels: { sources: ['kernels/addon', 'kernels/cpu', 'kernels/host'], variants: 'kernels/cpu/variants' },
  os: { sources: ['common/os'], variants: null },
};
const names = Object.keys(modules);

const commonFlags = [
  '-std=c++17', '-O3', '-g0', '-fPIC', '-pthread', '-fvisibility=hidden', '-ffp-contract=off',
  '-Wall', '-Wextra', '-DNAPI_VERSION=9', '-DNAPI_CPP_EXCEPTIONS',
  '-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS', '-DBUILDING_NODE_EXTENSION',
]; // prettier-ignore

export function nativeTarget({ platform, arch } = process) {
  if (platform !== 'linux') return `${platform}-${arch}`;
  const glibc = 'glibcVersionRuntime' in process.report.getReport().header;
  return `${platform}-${arch}-${glibc ? 'glibc' : 'musl'}`;
}

/** package.json of the packages that have the headers. */
function headerPackages(root) {
  const require = createRequire(join(root, 'package.json'));
  return ['node-api-headers', 'node-addon-api'].map((name) => require.resolve(`${name}/package.json`));
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

/** What a build would be made from, from outside, but for the compiler. */
function lookAtInputs(root) {
  const folders = ['kernels', ...names.flatMap((name) => modules[name].sources)];
  const inputs = new Set(folders.flatMap((folder) => listFiles(root, folder, ['.cc', '.h'])));
  const packages = headerPackages(root);
  return lookAt(root, [...inputs, ...packages, 'scripts/build/native.mjs']);
}

/** Builds what is stale into `outDir`. Returns the names of the modules that were built. */
export async function buildNative({ root, outDir = join(root, 'build', nativeTarget()), report = () => {} }) {
  const seen = [join(outDir, '.seen-sources'), join(outDir, '.seen-compiler')];
  const looks = [lookAtInputs(root), lookAtCompiler()];
  const areThere = names.every((name) => existsSync(join(outDir, `${name}.node`)));
  // What was built stays good where the compiler has been removed since.
  const isSame = (look, i) => isAsSeen(seen[i], look) || (i === 1 && look === null);
  if (areThere && looks.every(isSame)) return [];
  const compiler = findCompiler();
  const packages = headerPackages(root);
  const variants = probeVariants(compiler, process.arch, report);
  const plans = names.map(planModule).filter(({ list }) => list.length > 0);
  // Without the lock: who may not write here can run what is built.
  const stale = plans.some((plan) => !isCurrent(plan));
  const built = stale ? await withLock(join(outDir, '.lock'), buildAll) : [];
  looks.forEach((look, i) => keepLook(seen[i], look));
  return built;

  function planModule(name) {
    const list = units(root, name, variants);
    const tools = [compiler.program, compiler.version, ...packages.map((file) => readFileSync(file, 'utf8'))];
    for (const unit of list) {
      const text = JSON.stringify([commonFlags, unit.flags, ...tools]);
      unit.hash = hashOf(root, withHeaders(root, unit.source), [text]);
    }
    const hash = hashOf(root, [], list.flatMap(({ object, hash }) => [object, hash]));
    return { name, list, hash, stamp: join(outDir, `${name}.hash`), output: join(outDir, `${name}.node`) };
  }

  function isCurrent({ hash, stamp, output }) {
    return existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash;
  }

  async function buildAll() {
    const built = [];
    for (const plan of plans) {
      // Another process may have built it meanwhile.
      if (isCurrent(plan)) continue;
      await buildModule(plan);
      built.push(plan.name);
    }
    return built;
  }

  async function buildModule({ name, list, hash, stamp, output }) {
    const objects = join(outDir, 'obj', name);
    mkdirSync(objects, { recursive: true });
    const includes = [join(dirname(packages[0]), 'include'), dirname(packages[1]), root, join(root, 'kernels')];
    const includeFlags = includes.map((folder) => `-I${folder}`);
    const pending = list.filter((unit) => {
      const object = join(objects, unit.object);
      const stamp = `${object}.hash`;
      return !(existsSync(object) && existsSync(stamp) && readFileSync(stamp, 'utf8') === unit.hash);
    });
    let number = 0;
    await inParallel(pending, async (unit) => {
      const variant = unit.object.endsWith('.cc.o') ? '' : ` (${unit.object.split('.').at(-2)})`;
      const step = { number: ++number, total: pending.length, module: basename(output) };
      report(`compile ${unit.source}${variant}`, { step });
      const object = join(objects, unit.object);
      await run(compiler, [
        ...commonFlags, ...unit.flags, ...includeFlags, '-c', join(root, unit.source), '-o', object,
      ], report); // prettier-ignore
      writeFileSync(`${object}.hash`, unit.hash);
    });
    const link = process.platform === 'darwin' ? ['-bundle', '-undefined', 'dynamic_lookup'] : ['-shared', '-ldl'];
    // A process may have the old file mapped: write beside it, then rename.
    const fresh = `${output}.${process.pid}`;
    await run(compiler, [
      '-pthread', ...list.map((unit) => join(objects, unit.object)), ...link, '-o', fresh,
    ], report); // prettier-ignore
    renameSync(fresh, output);
    writeFileSync(stamp, hash);
    report(`built ${basename(output)}`);
  }
}

/** What the compiler says comes at its end, whole: others run beside it. */
function run(compiler, args, report) {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler.program, [...compiler.args, ...args], {
      stdio: ['ignore', 'inherit', 'pipe'],
      env: { ...process.env, TMPDIR: tmpdir() },
    });
    let output = '';
    child.stderr.setEncoding('utf8').on('data', (chunk) => (output += chunk));
    child.on('error', reject);
    child.on('close', (code) => {
      if (code !== 0 || output !== '') report(output, { isOutput: true });
      if (code === 0) resolve();
      else reject(new BuildError(`${compiler.program} failed on ${args.at(-3)}`));
    });
  });
}
