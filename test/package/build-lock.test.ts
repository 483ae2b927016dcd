// Builders that wait for one lock run one after another, also when they find it abandoned.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const lockModule = pathToFileURL(join(packageRoot, 'scripts/build/lock.mjs')).href;
const folder = mkdtempSync(join(tmpdir(), 'vllm-ts-lock-'));
const lock = join(folder, 'lock');
const log = join(folder, 'log');
t.teardown(() => rmSync(folder, { recursive: true }));

const program = `
  import { appendFileSync } from 'node:fs';
  import { setTimeout as sleep } from 'node:timers/promises';
  import { withLock } from ${JSON.stringify(lockModule)};
  for (let i = 0; i < 3; i++)
    await withLock(${JSON.stringify(lock)}, async () => {
      appendFileSync(${JSON.stringify(log)}, 'in\\n');
      await sleep(10);
      appendFileSync(${JSON.stringify(log)}, 'out\\n');
    });`;

async function contend(t: Test): Promise<void> {
  writeFileSync(log, '');
  const children = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'inherit' }),
  );
  const codes = await Promise.all(children.map((child) => once(child, 'exit')));
  t.same(codes, Array(4).fill([0, null]));
  t.equal(readFileSync(log, 'utf8'), 'in\nout\n'.repeat(12));
  t.notOk(existsSync(lock), 'nothing is left');
}

t.test('four builders', contend);

t.test('four builders and the lock of a process that is gone', async (t) => {
  const gone = spawn(process.execPath, ['-e', '']);
  await once(gone, 'exit');
  writeFileSync(lock, String(gone.pid));
  await contend(t);
});

t.test('four builders and a lock that was never written', async (t) => {
  writeFileSync(lock, '');
  utimesSync(lock, 1e9, 1e9);
  await contend(t);
});
