// A process of another build does not become part of a server: the start ends with 78, and both
// builds are named.
import { cpSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomInt } from 'node:crypto';
import t, { type Test } from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { startNode } from './nodes-suite.ts';
import { limitMs, runCommand } from './server.ts';

t.setTimeout(10 * limitMs);

const folders = ['common', 'frontend', 'engine', 'worker', 'detokenizer', 'kernels'];

/** A command that serves with our code, as builds that the expression `buildId` names. */
function otherBuild(t: Test, buildId: string): string[] {
  const root = mkdtempSync(join(realpathSync(tmpdir()), 'vt-build-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  cpSync(join(packageRoot, 'package.json'), join(root, 'package.json'));
  for (const name of ['node_modules', 'models', 'build'])
    symlinkSync(join(packageRoot, name), join(root, name));
  for (const name of folders)
    cpSync(join(packageRoot, 'dist', name), join(root, 'dist', name), { recursive: true });
  writeFileSync(join(root, 'dist/common/build-id.js'), `export const buildId = ${buildId};\n`);
  const run = join(root, 'run.mjs');
  writeFileSync(
    run,
    "import { main } from './dist/frontend/cli/main.js';\nawait main(process.argv.slice(2));\n",
  );
  return [process.execPath, run, 'serve'];
}

for (const role of ['worker', 'engine'])
  t.test(`a server whose ${role} is of another build ends with 78`, async (t) => {
    const isRole = `process.argv[1].endsWith('/${role}/main.js')`;
    const command = otherBuild(t, `${isRole} ? 'theirs' : 'ours'`);
    const server = runCommand(t, [...command, '--port', '0']);
    t.same(await server.exited, { code: 78, signal: null });
    const lastLine = server.stderr.trim().split('\n').at(-1)!;
    t.match(lastLine, /cause="build theirs does not match ours"/);
    t.match(lastLine, new RegExp(`in=("${role} 0"|${role}) exitCode=78`));
  });

t.test('a node of another build ends with 78, and its head waits on', async (t) => {
  const subnet = `127.${randomInt(1, 255)}.${randomInt(256)}`;
  const hosts = { addresses: [`${subnet}.1`, `${subnet}.2`], run: [[], []] } as const;
  const head = startNode(t, hosts, 0);
  const node = startNode(t, hosts, 1, { command: otherBuild(t, "'theirs'") });
  t.same(await node.exited, { code: 78, signal: null });
  t.match(node.stderr, /the head refuses this node: build theirs does not match \w+/);
  t.match(head.stderr, /a node was refused: build theirs does not match \w+/);
  t.notMatch(head.stderr, /FATAL/);
  t.ok(await head.child('worker 0'), 'it waits for another');
});
