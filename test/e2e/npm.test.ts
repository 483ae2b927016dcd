// `npm start` in a terminal, as the README has it, ended by Ctrl-C: the key press reaches npm and
// the server alike, and must count once.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { get } from './client.ts';
import { limitMs, descendants, runCommand, waitGone } from './server.ts';

t.setTimeout(10 * limitMs);

/** A build in the middle of the tests would pull the rug from under the others. */
async function isBuilt(): Promise<boolean> {
  const file = pathToFileURL(join(packageRoot, 'scripts/build/typescript.mjs')).href;
  const build = (await import(file)) as { isTypescriptStale(root: string): boolean };
  return !build.isTypescriptStale(packageRoot.replace(/\/$/, ''));
}

const hasScript = spawnSync('script', ['--version']).status === 0;
const skip = !hasScript
  ? 'script(1) is missing'
  : !(await isBuilt()) && 'the build is stale: npm run build';

t.test('Ctrl-C in a terminal ends npm start with 130', { skip }, async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  t.match(scripts['start'], /^exec /, 'else sh stays between npm and the server');
  const terminal = ['script', '--quiet', '--return', '--flush', '--command'];
  const server = runCommand(t, [...terminal, 'npm start -- --port 0', '/dev/null']);
  await server.waitReady();
  t.equal((await get(server, '/health')).status, 200);
  const pids = descendants(server.pid);
  t.ok(pids.length >= 6, 'npm, supervisor and four processes');
  server.type('\x03');
  const { code } = await server.exited;
  t.equal(code, 130);
  t.same(await waitGone(pids), []);
});
