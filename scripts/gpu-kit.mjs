// Packs what a machine without Node, npm and network needs to run vllm-ts: the node binary, the
// built package with its native modules and libvt_cuda.so, and the modules it depends on.
//
//   node scripts/gpu-kit.mjs OUT_DIR [--library FILE] [--tests] [--no-demo] [--add DIR...] [--part-mib N] [--level N]
//
// --library  libvt_cuda.so (default: the one in build/, if there is one)
// --tests    also the compiled tests, their fixtures and tap
// --no-demo  leaves out models/demo: the checkout on the other machine has it
// --add      folders (models) that are packed as they are, in parts of at most N MiB (32)
// --level    of xz for the node binary (6)
//
// OUT_DIR gets node.xz (made once), app.txz, setup.sh, and part-*/ of what was added. There:
//   sh OUT_DIR/setup.sh DEST      unpacks; again for each part; DEST/bin has node and vllm-ts
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readArguments, readNumber } from './build/arguments.mjs';
import { buildNative, nativeTarget } from './build/native.mjs';
import { createReport } from './build/progress.mjs';
import { buildTypescript } from './build/typescript.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const { values: options, positionals } = readArguments('gpu-kit', import.meta.url, {
  allowPositionals: true,
  options: {
    library: { type: 'string' },
    tests: { type: 'boolean', default: false },
    'no-demo': { type: 'boolean', default: false },
    add: { type: 'string', multiple: true, default: [] },
    'part-mib': { type: 'string', default: '32' },
    level: { type: 'string', default: '6' },
  },
});
if (positionals.length !== 1) fail('one OUT_DIR is needed');
const out = resolve(positionals[0]);
const partMib = readNumber('gpu-kit', '--part-mib', options['part-mib']);
const { level } = options;
if (!/^\d$/.test(level)) fail(`--level: ${level} is not 0 to 9`);
const report = createReport('gpu-kit: ');

await buildTypescript({ root, report });
const target = nativeTarget();
const native = join(root, 'build', target);
await buildNative({ root, outDir: native, report });
const library = options.library ?? join(native, 'libvt_cuda.so');
if (!existsSync(library)) fail(`${library} does not exist: npm run build:cuda makes it`);

mkdirSync(out, { recursive: true });
const stage = mkdtempSync(join(tmpdir(), 'gpu-kit-'));
try {
  packNode();
  packApp();
  for (const folder of options.add) packParts(resolve(folder));
  writeFileSync(join(out, 'setup.sh'), setupScript());
} finally {
  rmSync(stage, { recursive: true });
}
for (const name of readdirSync(out, { recursive: true })) {
  const size = execFileSync('du', ['-k', join(out, name)], { encoding: 'utf8' }).split('\t')[0];
  report(`${name}: ${(size / 1024).toFixed(1)} MiB`);
}

/** The binary that runs this script; slow to pack, so it is made once a version. */
function packNode() {
  const stamp = join(out, 'node.version');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === process.version) return;
  report('xz of the node binary (a minute)');
  const node = join(stage, 'node');
  cpSync(process.execPath, node);
  spawnSync('strip', [node], { stdio: 'ignore' });
  writeFileSync(join(out, 'node.xz'), xz(readFileSync(node), level));
  writeFileSync(stamp, process.version);
}

function packApp() {
  const app = join(stage, 'app');
  const isWanted = (path) =>
    !path.endsWith('.map') &&
    !path.endsWith('.d.ts') &&
    (options.tests || !/\/dist\/test$/.test(path));
  const copy = (from, to = relative(root, from)) =>
    cpSync(from, join(app, to), { recursive: true, dereference: true, filter: isWanted });
  for (const name of ['package.json', 'dist', 'scripts']) copy(join(root, name));
  if (!options['no-demo']) copy(join(root, 'models/demo'));
  for (const name of ['kernels.node', 'os.node'])
    copy(join(native, name), `prebuilds/${target}/${name}`);
  copy(library, `prebuilds/${target}/libvt_cuda.so`);
  if (options.tests) copy(join(root, 'test'));
  for (const name of packageClosure(options.tests ? ['tap'] : [])) copyPackage(name, app);
  writeFileSync(join(out, 'app.txz'), xz(tar(stage, 'app'), Math.min(3, level)));
}

/** Names of the packages that run-time dependencies (and `more`) lead to. */
function packageClosure(more) {
  const manifest = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const found = new Set();
  const pending = [...Object.keys(manifest(root).dependencies), ...more];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const folder = join(root, 'node_modules', name);
    if (found.has(name) || !existsSync(folder)) continue;
    found.add(name);
    pending.push(...Object.keys(manifest(folder).dependencies ?? {}));
  }
  return found;
}

/** A package without sources, maps and the binaries of other machines. */
function copyPackage(name, app) {
  const folder = join(root, 'node_modules', name);
  const ours = name === 'zeromq' ? loadedAddon(name) : null;
  cpSync(folder, join(app, 'node_modules', name), {
    recursive: true,
    dereference: true,
    filter: (path) =>
      !/\.(map|md|d\.[cm]?ts|cc|h|hpp)$/.test(path) &&
      (ours === null || !path.endsWith('.node') || path === ours),
  });
}

/** The native file of a package that this Node loads. */
function loadedAddon(name) {
  const code = `require(${JSON.stringify(name)});
    console.log(process.report.getReport().sharedObjects.find((file) => file.includes('/${name}/')) ?? '')`;
  const text = execFileSync(process.execPath, ['-e', code], { cwd: root, encoding: 'utf8' });
  const inside = text.trim().split(`/node_modules/${name}/`)[1];
  if (inside === undefined) fail(`${name} loads no native file`);
  return join(root, 'node_modules', name, inside);
}

/** A folder as one tar in parts, each in a folder of its own: part-NAME-0/, part-NAME-1/, ... */
function packParts(folder) {
  const name = basename(folder);
  const bytes = tar(dirname(folder), name);
  const partBytes = partMib * 2 ** 20;
  const count = Math.ceil(bytes.length / partBytes);
  for (let i = 0; i < count; i++) {
    const part = join(out, `part-${name}-${i}`);
    mkdirSync(part, { recursive: true });
    writeFileSync(
      join(part, `${name}.${i}.of.${count}`),
      bytes.subarray(i * partBytes, (i + 1) * partBytes),
    );
  }
}

function setupScript() {
  return `#!/bin/sh
# Unpacks this kit into DEST; what is there already stays. Parts are joined once all have come.
set -e
here=$(cd "$(dirname "$0")" && pwd); dest=\${1:?usage: setup.sh DEST}
mkdir -p "$dest/bin" "$dest/parts"
[ -x "$dest/bin/node" ] || { xz -dc "$here/node.xz" > "$dest/bin/node"; chmod 755 "$dest/bin/node"; }
if [ -e "$here/app.txz" ]; then rm -rf "$dest/app"; xz -dc "$here/app.txz" | tar -C "$dest" -xf -; fi
printf '#!/bin/sh\\nexec "%s/bin/node" "%s/app/scripts/vllm-ts.mjs" "$@"\\n' "$dest" "$dest" > "$dest/bin/vllm-ts"
chmod 755 "$dest/bin/vllm-ts"
for part in "$here"/part-*/*.of.*; do [ -e "$part" ] && cp "$part" "$dest/parts/"; done
for first in "$dest"/parts/*.0.of.*; do
  [ -e "$first" ] || continue
  count=\${first##*.of.}; stem=\${first%.0.of.*}; i=0; all=
  while [ $i -lt $count ] && [ -e "$stem.$i.of.$count" ]; do all="$all $stem.$i.of.$count"; i=$((i + 1)); done
  [ $i -lt $count ] || { cat $all | tar -C "$dest" -xf -; rm -f $all; }
done
`;
}

function tar(folder, name) {
  return execFileSync('tar', ['-C', folder, '-cf', '-', name], { maxBuffer: 2 ** 31 });
}

function xz(input, level) {
  return execFileSync('xz', [`-${level}`, '-T0', '-c'], { input, maxBuffer: 2 ** 31 });
}

function fail(message) {
  console.error(`gpu-kit: ${message}`);
  process.exit(64);
}
