// What npm would publish: packed, installed in an empty folder, imported and served.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { complete, serve } from './serve.ts';

const skip =
  process.env['VLLM_TS_PACKAGE_TESTS'] === undefined &&
  'slow, needs the npm registry: set VLLM_TS_PACKAGE_TESTS=1';

t.test('the packed tarball installs, imports and serves', { skip, timeout: 600_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vllm-ts-pack-'));
  const env = { ...process.env, XDG_CACHE_HOME: join(folder, 'cache') };
  const npm = (cwd: string, ...args: string[]) =>
    execFileSync('npm', args, { cwd, env, stdio: 'pipe' }).toString();

  npm(packageRoot, 'pack', '--ignore-scripts', '--pack-destination', folder);
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))!;
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  npm(folder, 'install', '--ignore-scripts', '--no-audit', '--no-fund', `./${tarball}`);
  const files = readdirSync(join(folder, 'node_modules/vllm-ts'), { recursive: true }).map(String);
  t.notOk(
    files.some((name) => name.startsWith('dist/test') || name.endsWith('.node')),
    'no tests, no binaries',
  );

  const program = `
    import * as main from 'vllm-ts';
    import * as client from 'vllm-ts/client';
    console.log(typeof main.LLM, typeof client.EngineClient);`;
  const imported = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: folder,
    env,
  });
  t.equal(imported.toString().trim(), 'function function');

  // Not through npx: it would not pass the signal on.
  const command = join(folder, 'node_modules/.bin/vllm-ts');
  const server = await serve(command, ['serve', '--port', '0'], { cwd: folder, env });
  t.ok((await complete(server.url)).length > 0);
  t.equal(await server.stop(), 0);
});
