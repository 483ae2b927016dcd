// Linux arm64 and macOS are compile-checked by the portable path with zig's C++ compiler (untested
// there: nothing runs).
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const zig = ['python3', '-m', 'ziglang'];
const required = process.env['VLLM_TS_PACKAGE_TESTS'] !== undefined;
const skip = !required && 'slow: set VLLM_TS_PACKAGE_TESTS=1';

const build = (await import(pathToFileURL(join(packageRoot, 'scripts/build/native.mjs')).href)) as {
  modules: Readonly<Record<string, { sources: readonly string[] }>>;
};

const sourcesOf = (folders: readonly string[]) =>
  folders.flatMap((folder) =>
    readdirSync(join(packageRoot, folder), { recursive: true })
      .map((name) => join(packageRoot, folder, String(name)))
      .filter((name) => name.endsWith('.cc')),
  );

for (const target of ['aarch64-linux-gnu', 'aarch64-macos'])
  t.test(`compiles for ${target}`, { skip, timeout: 1_700_000 }, (t) => {
    const version = spawnSync(zig[0]!, [...zig.slice(1), 'version']);
    t.equal(version.status, 0, 'PyPI package ziglang is installed');
    const require = createRequire(join(packageRoot, 'package.json'));
    const { include_dir } = require('node-api-headers') as { include_dir: string };
    const includes = [
      include_dir,
      dirname(require.resolve('node-addon-api/package.json')),
      packageRoot,
      join(packageRoot, 'kernels'),
    ].map((folder) => `-I${folder}`);
    const flags = ['-std=c++17', '-ffp-contract=off', '-DNAPI_VERSION=9', '-DNAPI_CPP_EXCEPTIONS'];
    const variant = ['-DVT_VARIANT=portable', '-DVT_VARIANT_PORTABLE=1'];
    const args = ['c++', '-target', target, '-O0', '-c', ...flags, ...variant, ...includes];
    for (const [name, { sources }] of Object.entries(build.modules)) {
      const files = sourcesOf(sources);
      t.ok(files.length > 0, `${name}: ${files.length} sources`);
      const run = spawnSync(zig[0]!, [...zig.slice(1), ...args, ...files], { cwd: t.testdir() });
      t.equal(run.status, 0, run.stderr.toString().slice(0, 4000));
    }
    t.end();
  });
