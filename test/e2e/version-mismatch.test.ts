// A process of another build does not become part of a server: the start ends with 78, and both
// builds are named.
import { cpSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { limitMs, runCommand } from './server.ts';

t.setTimeout(10 * limitMs);

const folders = ['common', 'frontend', 'engine', 'worker', 'detokenizer', 'kernels'];

for (const role of ['worker', 'engine'])
  t.test(`a server whose ${role} is of another build ends with 78`, async (t) => {
    const root = mkdtempSync(join(realpathSync(tmpdir()), 'vt-build-'));
    t.teardown(() => rmSync(root, { recursive: true }));
    cpSync(join(packageRoot, 'package.json'), join(root, 'package.json'));
    for (const name of ['node_modules', 'models', 'build'])
      symlinkSync(join(packageRoot, name), join(root, name));
    for (const name of folders)
      cpSync(join(packageRoot, 'dist', name), join(root, 'dist', name), { recursive: true });
    writeFileSync(
      join(root, 'dist/common/build-id.js'),
      `export const buildId = process.argv[1].endsWith('/${role}/main.js') ? 'theirs' : 'ours';\n`,
    );
    const run = join(root, 'run.mjs');
    writeFileSync(
      run,
      "import { main } from './dist/frontend/cli/main.js';\nawait main(process.argv.slice(2));\n",
    );
    const server = runCommand(t, [process.execPath, run, 'serve', '--port', '0']);
    t.same(await server.exited, { code: 78, signal: null });
    const lastLine = server.stderr.trim().split('\n').at(-1)!;
    t.match(lastLine, /cause="build theirs does not match ours"/);
    t.match(lastLine, new RegExp(`in=("${role} 0"|${role}) exitCode=78`));
  });
