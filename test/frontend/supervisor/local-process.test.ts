// A process that cannot be started has ended, and says why; nobody's program ends with it.
import { execFileSync } from 'node:child_process';
import t from 'tap';

const script = `
  import { closeSync, openSync } from 'node:fs';
  import { spawnLocal } from ${JSON.stringify(new URL('../../../frontend/supervisor/local-process.js', import.meta.url).href)};
  const spawned = { role: 'worker', index: 0, generation: 0, command: ['-e', ''], fds: [] };
  const tell = (status) => console.log(JSON.stringify(status));
  const start = (change) =>
    spawnLocal({ ...spawned, address: 'a', serverKey: null, token: 't', ...change }, tell);
  start({ fds: [9999] });
  const open = [];
  try { for (;;) open.push(openSync('/dev/null')); } catch {}
  for (let free = 0; free < 5; free++) {
    start({}).kill();
    closeSync(open.pop());
  }
`;

t.test('spawnLocal tells that there are no descriptors left', (t) => {
  // In a group of its own: a kill of what was not started must not reach the tests.
  const shell = ['-w', 'sh', '-c', 'ulimit -n 64 && exec "$0" "$@"', process.execPath];
  const output = execFileSync('setsid', [...shell, '--input-type=module', '-e', script]);
  const statuses = output.toString().trim().split('\n');
  t.equal(statuses.length, 6);
  for (const line of statuses) {
    const status = JSON.parse(line) as { code: number; reason: string };
    t.match(status, { code: 1, reason: /^it cannot be started: .*(EBADF|EMFILE)/ });
  }
  t.end();
});
