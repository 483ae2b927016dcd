// A machine with only node, npm, sh and a C++ compiler (with its as and ld), and no Node headers:
// a clean copy of the repository installs, builds, starts and answers.
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { descendants, titleOf } from '../e2e/server.ts';
import { writeQuickCompiler } from './quick-compiler.ts';
import { complete, serve } from './serve.ts';

const skip =
  process.env['VLLM_TS_PACKAGE_TESTS'] === undefined &&
  'slow, needs the npm registry: set VLLM_TS_PACKAGE_TESTS=1';

const which = (name: string) =>
  execFileSync('/bin/sh', ['-c', `command -v ${name}`])
    .toString()
    .trim();

/** A folder that is all of PATH. */
function barePath(folder: string, names: readonly string[]): string {
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  for (const name of names) symlinkSync(which(name), join(bin, name));
  return bin;
}

function copyTracked(target: string): void {
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: packageRoot })
    .toString()
    .split('\0')
    .filter(Boolean);
  for (const file of files) {
    mkdirSync(join(target, dirname(file)), { recursive: true });
    copyFileSync(join(packageRoot, file), join(target, file));
  }
}

/** How this machine reaches the npm registry: the only outside that a bare machine has. */
function reachOfRegistry(): NodeJS.ProcessEnv {
  const names = /^(npm_config_(registry|cafile)|NODE_EXTRA_CA_CERTS|(https?|no)_proxy)$/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => names.test(name)));
}

t.test('npm ci && npm start on a bare machine', { skip, timeout: 1_700_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vllm-ts-bare-'));
  const checkout = join(folder, 'checkout');
  copyTracked(checkout);
  const env = {
    ...reachOfRegistry(),
    PATH: barePath(folder, ['node', 'npm', 'sh', 'as', 'ld']),
    HOME: folder,
    npm_config_nodedir: '/nonexistent',
    npm_config_cache:
      process.env['npm_config_cache'] ?? join(process.env['HOME'] ?? folder, '.npm'),
  };
  writeQuickCompiler(join(env.PATH, 'g++'), which('g++'));
  const install = spawnSync(join(env.PATH, 'npm'), ['ci', '--no-audit', '--no-fund'], {
    cwd: checkout,
    env,
  });
  t.equal(install.status, 0, install.stderr.toString());
  const server = await serve(join(env.PATH, 'npm'), ['start', '--', '--port', '0'], {
    cwd: checkout,
    env,
  });
  t.ok((await complete(server.url)).length > 0);
  const readyMs = Number(/ready_ms=(\d+)/.exec(server.output())?.[1]);
  t.ok(readyMs < server.msSinceBuild, 'what it says to be ready after is without the build');
  const titles = [server.child.pid!, ...descendants(server.child.pid!)].map(titleOf);
  t.ok(titles.includes('vllm-ts: engine'), titles.join(', '));
  t.notOk(
    titles.some((title) => title.includes('esbuild')),
    'nothing of the build is left beside the server',
  );
  t.equal(await server.stop(), 0);

  rmSync(join(checkout, 'build'), { recursive: true });
  const without = barePath(mkdtempSync(join(tmpdir(), 'vllm-ts-bare-')), ['node', 'sh']);
  const build = spawnSync(join(without, 'node'), ['scripts/build.mjs'], {
    cwd: checkout,
    env: { ...env, PATH: without },
  });
  t.equal(build.status, 1, 'without a compiler');
  t.match(build.stderr.toString(), /^build: no C\+\+ compiler found: install one .*\n$/);
});
