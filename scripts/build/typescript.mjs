// TypeScript to dist/ by tsc, then one bundle a process by esbuild, so that a process reads one
// file at start. dist/build-id is the hash that our processes compare when they shake hands.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { BuildError } from './compiler.mjs';
import { hashOf, listFiles } from './hash.mjs';
import { withLock } from './lock.mjs';
import { isAsSeen, keepLook, lookAt } from './seen.mjs';

const folders = ['common', 'engine', 'worker', 'frontend', 'detokenizer', 'kernels', 'scripts', 'test', 'examples'];

/** Bundle name -> entry point; worker threads (*-thread.ts) are bundled beside their processes. */
const entryPoints = {
  supervisor: 'frontend/cli/main.ts',
  frontend: 'frontend/main.ts',
  engine: 'engine/main.ts',
  worker: 'worker/main.ts',
  detokenizer: 'detokenizer/main.ts',
};

function inputFiles(root) {
  const sources = folders.flatMap((folder) => listFiles(root, folder, ['.ts']));
  const native = ['kernels', 'common/os'].flatMap((folder) => listFiles(root, folder, ['.cc', '.h', '.cu', '.cuh']));
  return [...sources, ...native, 'tsconfig.json', 'package-lock.json', 'scripts/build/typescript.mjs'];
}

/** Looks at contents only where sizes or times of the inputs are not those that it saw last. */
export function isTypescriptStale(root) {
  const file = join(root, 'dist/build-id');
  const areThere = [file, ...Object.keys(entryPoints).map((name) => join(root, `dist/bundle/${name}.js`))];
  if (!areThere.every((file) => existsSync(file))) return true;
  const files = inputFiles(root);
  const look = lookAt(root, files);
  const seen = join(root, 'dist/.seen');
  if (isAsSeen(seen, look)) return false;
  if (readFileSync(file, 'utf8').trim() !== hashOf(root, files)) return true;
  keepLook(seen, look);
  return false;
}

export async function buildTypescript({ root, report = () => {} }) {
  if (!isTypescriptStale(root)) return false;
  return await withLock(join(root, 'dist/.lock'), async () => {
    if (!isTypescriptStale(root)) return false;
    const files = inputFiles(root);
    const look = lookAt(root, files);
    const hash = hashOf(root, files);
    report('tsc');
    const tsc = spawnSync(process.execPath, ['node_modules/typescript/lib/tsc.js'], { cwd: root, stdio: 'inherit' });
    if (tsc.status !== 0) throw new BuildError('tsc failed');
    report('bundles');
    await bundle(root);
    writeFileSync(join(root, 'dist/build-id'), `${hash}\n`);
    keepLook(join(root, 'dist/.seen'), look);
    return true;
  });
}

async function bundle(root) {
  const { build, stop } = await import('esbuild');
  const threads = folders
    .filter((folder) => folder !== 'test')
    .flatMap((folder) => listFiles(root, folder, ['-thread.ts']))
    .map((file) => [basename(file, '.ts'), file]);
  const entries = [...Object.entries(entryPoints), ...threads].filter(([, file]) => existsSync(join(root, file)));
  mkdirSync(join(root, 'dist/bundle'), { recursive: true });
  const options = {
    absWorkingDir: root,
    entryPoints: entries.map(([out, file]) => ({ out, in: file })),
    outdir: 'dist/bundle',
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    sourcemap: 'linked',
    sourcesContent: false,
    logLevel: 'warning',
    // zeromq finds its own binary beside itself; the others are never loaded (frontend/http/app.ts).
    external: ['zeromq', '@fastify/ajv-compiler', '@fastify/fast-json-stringify-compiler'],
    // The same code, but without the attempt to load a native reader of strings.
    alias: { msgpackr: 'msgpackr/pack' },
    banner: {
      js: "import { createRequire as vtCreateRequire } from 'node:module'; const require = vtCreateRequire(import.meta.url);",
    },
  };
  try {
    await build(options);
  } finally {
    // Its service would outlive the build, beside the server that this process goes on to be.
    await stop();
  }
}
