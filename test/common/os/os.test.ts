import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import {
  closeListening,
  listenTcp,
  listenUnix,
  raiseFileLimit,
  requestSlice,
} from '../../../common/os/index.ts';

t.test('listenTcp binds before anything accepts, and an inherited fd serves', async (t) => {
  for (const host of ['127.0.0.1', '::1', 'localhost']) {
    const listening = listenTcp(host, 0);
    t.throws(() => listenTcp(host, listening.port), { code: 'EADDRINUSE' });
    const early = connect(listening.port, host);
    await once(early, 'connect');
    const server = createServer((socket) => socket.end('hello')).listen({ fd: listening.fd });
    const [data] = (await once(early, 'data')) as [Buffer];
    t.equal(data.toString(), 'hello');
    server.close();
  }
  t.throws(() => listenTcp('no.such.host.invalid', 0), { message: /unknown host/ });
  t.throws(() => listenTcp('203.0.113.1', 0), { code: 'EADDRNOTAVAIL' });
});

t.test('listenUnix replaces a dead socket file, never a live one or another file', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-os-'));
  const path = join(folder, 's');
  const first = listenUnix(path);
  t.throws(() => listenUnix(path), { code: 'EADDRINUSE' });
  closeListening(first);
  closeListening(listenUnix(path));
  const file = join(folder, 'f');
  writeFileSync(file, 'mine');
  t.throws(() => listenUnix(file), { code: 'EEXIST' });
  t.throws(() => listenUnix(`/tmp/${'x'.repeat(200)}`), { code: 'ENAMETOOLONG' });
  rmSync(folder, { recursive: true });
  t.end();
});

t.test('raiseFileLimit sets the soft limit to the hard one', (t) => {
  t.ok(raiseFileLimit() >= 256);
  t.equal(raiseFileLimit(), raiseFileLimit());
  t.end();
});

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** A parent that starts a child which calls dieWithParent, then prints the child's pid. */
function family(parentPid: string, fd: number) {
  const os = new URL('../../../common/os/index.js', import.meta.url).href;
  const child = `import(${JSON.stringify(os)}).then(({ dieWithParent }) => {
    dieWithParent(${parentPid}, ${fd});
    console.log(process.pid);
    for (;;); // a busy thread dies all the same
  });`;
  const parent = `const { spawn } = require('node:child_process');
    spawn(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] })
      .on('exit', (code, signal) => console.log(signal));
    setInterval(() => undefined, 1000);`;
  return spawn(process.execPath, ['-e', parent], { stdio: ['ignore', 'pipe', 'inherit'] });
}

t.test('dieWithParent ends a child whose parent was killed', async (t) => {
  const parent = family('process.ppid', 3);
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  t.ok(isAlive(pid));
  parent.kill('SIGKILL');
  for (let i = 0; i < 10_000 && isAlive(pid); i++) await sleep(10);
  t.notOk(isAlive(pid));
});

t.test('dieWithParent ends a child whose parent has changed before the call', async (t) => {
  const parent = family('1', -1);
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  t.equal(line.toString().trim(), 'SIGKILL');
  parent.kill('SIGKILL');
});

t.test('dieWithParent watches the pipe as well', async (t) => {
  const os = new URL('../../../common/os/index.js', import.meta.url).href;
  // The parent lives on: only its end of the pipe is closed.
  const child = spawn(
    process.execPath,
    [
      '-e',
      `import(${JSON.stringify(os)}).then((os) => { os.dieWithParent(process.ppid, 3); console.log('on'); for (;;); })`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit', 'pipe'] },
  );
  await once(child.stdout!, 'data');
  child.stdio[3]!.destroy();
  const [, signal] = (await once(child, 'exit')) as [number, string];
  t.equal(signal, 'SIGKILL');
});

t.test('requestSlice is taken by kernels that know slices, and refused quietly by others', (t) => {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const knowsSlices = process.platform === 'linux' && (major > 6 || (major === 6 && minor >= 12));
  t.equal(requestSlice(200_000), knowsSlices);
  t.end();
});
