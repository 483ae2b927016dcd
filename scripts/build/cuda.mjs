// Compiles kernels/cuda, and what it shares with other native backends (kernels/host), with nvcc:
// one object a source, named by what it was made from (source, the headers that it includes, flags,
// compiler), so that checkouts can share a folder of them. Knows nothing of the addon, which loads
// the library at run time.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { dirname, join } from 'node:path';
import { hashOf, listFiles, withHeaders } from './hash.mjs';
import { withLock } from './lock.mjs';
import { BuildError, nativeTarget } from './native.mjs';
import { inParallel } from './parallel.mjs';

const folders = ['kernels/cuda', 'kernels/host'];
const flags = [
  '-std=c++17', '-O3', '-fmad=false', '-Xcompiler', '-fPIC,-fvisibility=hidden,-ffp-contract=off',
]; // prettier-ignore

const code = (arch, as) => ['-gencode', `arch=compute_${arch},code=${as}_${arch}`];
const hopper = code('90a', 'sm');
/** What a target leaves out is unused there. */
const quiet = ['-diag-suppress', '177'];
/** kernels/cuda/host/device.cu asks which PTX there is. */
const releaseTargets = [...hopper, ...code('80', 'sm'), ...code('90', 'compute'), '-DVT_CUDA_PTX=90', ...quiet];
const ptxAlone = (arch) => [...code(arch, 'compute'), `-DVT_CUDA_PTX=${arch}`, ...quiet];

/** Where pip's packages nvidia-cuda-nvcc and its kin keep the toolkit. */
function pipToolkits() {
  const code =
    'import sysconfig,site;print("\\n".join({sysconfig.get_path("purelib"),site.getusersitepackages()}))';
  const run = spawnSync('python3', ['-c', code], { encoding: 'utf8' });
  if (run.status !== 0) return [];
  return run.stdout.trim().split('\n').map((path) => join(path, 'nvidia', 'cu13')); // prettier-ignore
}

const leastRelease = 13;

/**
 * The nvcc to use: { nvcc, version, libraries }, or null. `libraries` is a folder or null. Those that
 * are too old are passed over, and told to `older` as { nvcc, release }.
 */
export function findNvcc(older = () => {}) {
  const onPath = (process.env.PATH ?? '').split(':').map((path) => join(path, 'nvcc'));
  const homes = [process.env.CUDA_HOME, ...pipToolkits()].filter(Boolean);
  for (const nvcc of [...onPath, ...homes.map((home) => join(home, 'bin', 'nvcc'))]) {
    if (!existsSync(nvcc)) continue;
    const run = spawnSync(nvcc, ['--version'], { encoding: 'utf8' });
    if (run.status !== 0) continue;
    const [, release = ''] = /release (\d+\.\d+)/.exec(run.stdout) ?? [];
    if (Number.parseInt(release) < leastRelease) {
      older({ nvcc, release });
      continue;
    }
    // nvcc finds its own libraries, except in pip's layout.
    const libraries = join(dirname(dirname(nvcc)), 'lib');
    return { nvcc, version: run.stdout.trim(), libraries: existsSync(libraries) ? libraries : null };
  }
  return null;
}

/** Builds what is stale into `outDir`, its objects into `objects`. Returns the library's path. */
export async function buildCuda({
  root,
  release = false,
  ptx,
  outDir = join(root, 'build', nativeTarget()),
  objects = join(outDir, 'obj', 'cuda'),
  report = () => {},
}) {
  const tooOld = [];
  const found = findNvcc(({ nvcc, release }) => tooOld.push(` (${nvcc} is of ${release})`));
  if (found === null) {
    throw Object.assign(
      new BuildError(
        `no nvcc of CUDA ${leastRelease} on the PATH, in CUDA_HOME or among pip packages${tooOld.join('')}: install the CUDA 13 toolkit, or pip install nvidia-cuda-nvcc==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cuda-cccl==13.0.* nvidia-cuda-crt==13.0.* nvidia-nvvm==13.0.*`,
      ),
      { noCompiler: true },
    );
  }
  if (ptx !== undefined && ptx !== '80') throw new BuildError(`--ptx ${ptx} is not built; 80 is`);
  const targets = ptx ? ptxAlone(ptx) : release ? releaseTargets : hopper;
  const name = `libvt_cuda${ptx ?? ''}`;
  return await withLock(join(outDir, '.cuda.lock'), async () => {
    const sources = folders.flatMap((folder) => listFiles(root, folder, ['.cu', '.cc']));
    const text = JSON.stringify([flags, targets, found.version]);
    const hashes = new Map(
      sources.map((source) => [source, hashOf(root, withHeaders(root, source), [text])]),
    );
    const output = join(outDir, `${name}.so`);
    const stamp = join(outDir, `${name}.hash`);
    const hash = hashOf(root, [], [text, ...sources, ...hashes.values()]);
    if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) {
      return output;
    }
    mkdirSync(objects, { recursive: true });
    const objectOf = new Map(
      sources.map((source) => {
        const name = `${source.replaceAll('/', '-')}.${hashes.get(source)}.o`;
        return [source, join(objects, name)];
      }),
    );
    const pending = sources.filter((source) => !existsSync(objectOf.get(source)));
    await inParallel(pending, async (source) => {
      report(`compile ${source}`);
      // A build that is stopped, or another one in the same folder, leaves no half object.
      const fresh = `${objectOf.get(source)}.${process.pid}`;
      await run(found.nvcc, [...flags, ...targets, '-c', join(root, source), '-o', fresh], source);
      renameSync(fresh, objectOf.get(source));
    });
    // A process may have the old file mapped: write beside it, then rename.
    const fresh = `${output}.${process.pid}`;
    const libraries = found.libraries === null ? [] : ['-L', found.libraries];
    const link = ['-shared', '-cudart', 'static', ...libraries, ...targets, '-lpthread', '-ldl'];
    await run(found.nvcc, [...link, ...objectOf.values(), '-o', fresh], `${name}.so`);
    renameSync(fresh, output);
    writeFileSync(stamp, hash);
    removeUnused(objects, new Set(objectOf.values()));
    report(`built ${output}`);
    return output;
  });
}

const unusedDays = 14;

function removeUnused(folder, used) {
  const before = Date.now() - unusedDays * 86_400_000;
  for (const name of readdirSync(folder)) {
    const file = join(folder, name);
    if (!used.has(file) && statSync(file).mtimeMs < before) rmSync(file, { force: true });
  }
}

function run(program, args, what) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', reject);
    child.on('exit', (code) => {
      if (code === 0) resolve();
      else reject(new BuildError(`nvcc failed on ${what}`));
    });
  });
}
