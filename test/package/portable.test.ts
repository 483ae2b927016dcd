// Linux arm64 and macOS are compile-checked by the portable path with zig's C++ compiler (untested
// there: nothing runs).
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createRequire } from 'node:module';
import { readdirSync } from 'node:fs';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const zig = ['python3', '-m', 'ziglang'];
const present = spawnSync(zig[0]!, [...zig.slice(1), 'version']).status === 0;
const required = process.env['VLLM_TS_PACKAGE_TESTS'] !== undefined;
const skip = !required && 'slow: set VLLM_TS_PACKAGE_TESTS=1';

const sources = ['kernels/addon', 'kernels/cpu', 'common/os'].flatMap((folder) =>
  readdirSync(join(packageRoot, folder), { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((name) => name.endsWith('.cc')),
);

for (const target of ['aarch64-linux-gnu', 'aarch64-macos', 'x86_64-macos'])
  t.test(`compiles for ${target}`, { skip, timeout: 900_000 }, (t) => {
    t.ok(present, 'PyPI package ziglang is installed');
    const require = createRequire(join(packageRoot, 'package.json'));
    const { include_dir } = require('node-api-headers') as { include_dir: string };
    const flags = [
      '-std=c++17',
      '-O1',
      '-ffp-contract=off',
      '-DNAPI_VERSION=9',
      '-DNAPI_CPP_EXCEPTIONS',
    ];
    const includes = [
      include_dir,
      dirname(require.resolve('node-addon-api/package.json')),
      packageRoot,
      join(packageRoot, 'kernels'),
    ].map((folder) => `-I${folder}`);
    const out = mkdtempSync(join(tmpdir(), 'vllm-ts-zig-'));
    for (const source of sources) {
      const variant = source.includes('/variants/')
        ? ['-DVT_VARIANT=portable', '-DVT_VARIANT_PORTABLE=1']
        : [];
      const args = ['c++', '-target', target, ...flags, ...variant, ...includes, '-c', source];
      const run = spawnSync(zig[0]!, [...zig.slice(1), ...args, '-o', join(out, 'x.o')], {
        cwd: packageRoot,
      });
      t.equal(run.status, 0, `${source}\n${run.stderr.toString()}`);
    }
    t.end();
  });
