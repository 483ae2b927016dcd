// A process that cannot be started has ended, and says why; nobody's program ends with it.
import { execFileSync } from 'node:child_process';
import t from 'tap';

const script = `
  import { openSync } from 'node:fs';
  import { spawnLocal } from ${JSON.stringify(new URL('../../../frontend/supervisor/local-process.js', import.meta.url).href)};
  const spawned = { role: 'worker', index: 0, generation: 0, command: ['-e', ''], fds: [] };
  const tell = (status) => console.log(JSON.stringify(status));
  const start = (change) =>
    spawnLocal({ ...spawned, address: 'a', serverKey: null, token: 't', ...change }, tell);
  start({ fds: [9999] });
  try { for (;;) openSync('/dev/null'); } catch {}
  start({}).kill();
`;

t.test('spawnLocal tells that there are no descriptors left', (t) => {
  const shell = ['-c', 'ulimit -n 64 && exec "$0" "$@"', process.execPath];
  const output = execFileSync('sh', [...shell, '--input-type=module', '-e', script]);
  const statuses = output.toString().trim().split('\n');
  t.match(statuses.map((line) => JSON.parse(line) as object).sort(), [
    { code: 1, signal: null, reason: /^it cannot be started: .*(EBADF|EMFILE)/ },
    { code: 1, signal: null, reason: /^it cannot be started: .*(EBADF|EMFILE)/ },
  ]);
  t.equal(statuses.length, 2);
  t.end();
});
