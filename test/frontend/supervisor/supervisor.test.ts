import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { createLogger } from '../../../common/log.ts';
import { makeHello } from '../../../common/wire/handshake.ts';
import { protocolVersion } from '../../../common/wire/messages.ts';
import { DealerLink, type AnyMessage } from '../../../common/wire/transport.ts';
import type { ChildRole } from '../../../frontend/supervisor/child.ts';
import type { Plan } from '../../../frontend/supervisor/plan.ts';
import { Supervisor } from '../../../frontend/supervisor/supervisor.ts';

const entry = fileURLToPath(new URL('fixture-child.js', import.meta.url));
const log = createLogger({ process: 'supervisor', level: 'error', format: 'text' });

/** A server of four fixture children, each with the behaviour that its role is given. */
async function start(
  t: Test,
  behaviours: Partial<Record<ChildRole, string>> = {},
  shutdownTimeoutMs = 30_000,
  numWorkers = 1,
  livenessTimeoutMs = 0,
) {
  const notes = mkdtempSync(join(tmpdir(), 'vt-sup-'));
  const plan: Plan = {
    token: 'secret',
    controlAddress: `ipc://${notes}/control.sock`,
    processes: [
      ...(['engine', 'detokenizer', 'frontend'] as const).map((role) => ({ role, index: 0 })),
      ...Array.from({ length: numWorkers }, (_, index) => ({ role: 'worker', index }) as const),
    ],
    nodes: null,
    shutdownTimeoutMs,
    livenessTimeoutMs,
    command: (role) => [entry, role],
    fds: () => [],
    slice: ({ role, generation }) => ({
      runDir: notes,
      generation,
      logLevel: 'error',
      logFormat: 'text',
      notes,
      behaviour: behaviours[role] ?? '',
    }),
    addresses: ({ generation }) => ({ engine: `ipc://somewhere.${generation}` }),
  };
  let setReady!: (info: ReadonlyMap<string, unknown>) => void;
  const ready = new Promise<ReadonlyMap<string, unknown>>((resolve) => (setReady = resolve));
  const events = { ready: setReady, replaced: () => undefined };
  const supervisor = await Supervisor.start(plan, events, log);
  t.teardown(async () => {
    supervisor.signal('SIGINT');
    await supervisor.outcome;
    rmSync(notes, { recursive: true, force: true });
  });
  /** Waits for what a process has noted, and returns its text. */
  const note = async (name: string) => {
    const path = join(notes, name);
    for (let i = 0; !existsSync(path); i++) {
      if (i > 10_000) throw new Error(`no ${name} among ${readdirSync(notes).join(' ')}`);
      await sleep(10);
    }
    return readFileSync(path, 'utf8');
  };
  const pid = async (name: string) => Number(await note(`${name}.pid`));
  return { supervisor, notes, ready, note, pid };
}

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

t.test('Supervisor starts all processes and drains them on SIGTERM', async (t) => {
  const { supervisor, ready, note, pid } = await start(t);
  const info = await ready;
  t.same([...info.keys()].sort(), ['detokenizer', 'engine', 'frontend 0', 'worker 0']);
  t.same(info.get('engine'), { device: 'none' });
  const pids = await Promise.all(
    ['engine-0.0', 'worker-0.0', 'detokenizer-0.0', 'frontend-0.0'].map(pid),
  );
  supervisor.signal('SIGTERM');
  t.same(await supervisor.outcome, { exitCode: 0, cause: null });
  t.not(await note('frontend-0.0.drain'), '');
  t.ok(Number(await note('engine-0.0.drain')) <= 30_000);
  await note('worker-0.0.stop');
  t.notOk(pids.some(isAlive));
});

t.test('Supervisor stops at once on SIGINT, without draining', async (t) => {
  const { supervisor, ready, notes } = await start(t);
  await ready;
  supervisor.signal('SIGINT');
  supervisor.signal('SIGINT');
  t.same(await supervisor.outcome, { exitCode: 130, cause: null });
  t.notOk(existsSync(join(notes, 'frontend-0.0.drain')));
});

t.test('Supervisor stops while it is starting', async (t) => {
  const { supervisor } = await start(t);
  supervisor.signal('SIGTERM');
  t.same(await supervisor.outcome, { exitCode: 0, cause: null });
});

t.test('Supervisor ends at once on a second signal after 500 ms', async (t) => {
  const { supervisor, ready, note, pid } = await start(t, { frontend: 'stubborn' });
  await ready;
  supervisor.signal('SIGTERM');
  supervisor.signal('SIGTERM');
  await note('frontend-0.0.drain');
  await sleep(600);
  const engine = await pid('engine-0.0');
  t.ok(isAlive(engine), 'the repeated first signal did not count');
  supervisor.signal('SIGTERM');
  t.same(await supervisor.outcome, { exitCode: 143, cause: null });
  t.notOk(isAlive(engine));
});

t.test('Supervisor ends the engine when the time to drain is over', async (t) => {
  const { supervisor, ready, note } = await start(t, { frontend: 'stubborn' }, 300);
  await ready;
  supervisor.signal('SIGTERM');
  t.equal((await supervisor.outcome).exitCode, 0);
  t.equal(await note('engine-0.0.drain'), '0');
});

t.test('Supervisor fails with the code and words of a process that cannot start', async (t) => {
  const { supervisor } = await start(t, { worker: 'fail' });
  t.same(await supervisor.outcome, {
    exitCode: 65,
    cause: { process: 'worker 0', message: 'no such weights' },
  });
});

for (const role of ['worker', 'detokenizer', 'frontend'] as const)
  t.test(`Supervisor replaces a killed ${role} and tells the others`, async (t) => {
    const { ready, note, pid } = await start(t);
    await ready;
    process.kill(await pid(`${role}-0.0`), 'SIGKILL');
    await note(`engine-0.0.lost-${role}.0`);
    t.not(await pid(`${role}-0.1`), await pid(`${role}-0.0`));
    const addresses = JSON.parse(await note(`engine-0.0.ready-${role}.1`)) as unknown;
    t.same(addresses, { engine: 'ipc://somewhere.1' });
  });

t.test('Supervisor ends with a non-zero code when the engine dies', async (t) => {
  const { supervisor, ready, note, pid } = await start(t);
  await ready;
  process.kill(await pid('engine-0.0'), 'SIGKILL');
  t.same(await supervisor.outcome, {
    exitCode: 1,
    cause: { process: 'engine', message: 'killed by SIGKILL' },
  });
  await note('frontend-0.0.lost-engine.0');
});

t.test('Supervisor ends when a process has died three times', async (t) => {
  const { supervisor, ready, note, pid } = await start(t);
  await ready;
  for (const generation of [0, 1, 2]) {
    if (generation > 0) await note(`engine-0.0.ready-worker.${generation}`);
    process.kill(await pid(`worker-0.${generation}`), 'SIGKILL');
  }
  const { exitCode, cause } = await supervisor.outcome;
  t.equal(exitCode, 1);
  t.match(cause, { process: 'worker 0', message: /3 deaths/ });
});

t.test('Supervisor replaces all workers when one dies, and counts one death', async (t) => {
  const { ready, note, pid } = await start(t, {}, 30_000, 3);
  await ready;
  const indices = [0, 1, 2];
  for (const generation of [0, 1]) {
    const old = await Promise.all(indices.map((i) => pid(`worker-${i}.${generation}`)));
    process.kill(old[1 + generation]!, 'SIGKILL');
    // Each is of the next generation, and none of the old ones is left.
    const fresh = await Promise.all(indices.map((i) => pid(`worker-${i}.${generation + 1}`)));
    t.equal(new Set([...old, ...fresh]).size, 6);
    t.notOk(old.some(isAlive));
    await note(`engine-0.0.ready-worker.${generation + 1}`);
  }
});

t.test('Supervisor refuses strangers and other builds, and names both versions', async (t) => {
  const { ready, notes } = await start(t);
  await ready;
  const hello = makeHello('worker', 0, 0, 'secret');
  const answer = (changes: object) =>
    new Promise<AnyMessage>((resolve) => {
      const link = new DealerLink(
        `ipc://${notes}/control.sock`,
        { ...hello, ...changes },
        {
          message: (message) => {
            link.close();
            resolve(message);
          },
          rejected: () => undefined,
        },
      );
    });
  t.match(await answer({ token: 'guess' }), { kind: 'refused', message: 'wrong token' });
  const other = await answer({ build: 'other' });
  t.equal(other['message'], `build other does not match ${hello.build}`);
  t.match(
    (await answer({ protocol: 99 }))['message'],
    new RegExp(`99 does not match ${protocolVersion}`),
  );
  t.match(await answer({ role: 'client', build: null }), { kind: 'refused' });
});

t.test('Supervisor ends with the reason when the engine itself is given up', async (t) => {
  const { supervisor, ready, pid } = await start(t, { frontend: 'wants-engine-replaced' });
  await ready;
  process.kill(await pid('frontend-0.0'), 'SIGUSR2');
  t.same(await supervisor.outcome, {
    exitCode: 1,
    cause: { process: 'engine', message: 'hung' },
  });
});

t.test('Supervisor replaces a worker that the engine has given up', async (t) => {
  const { ready, note, pid } = await start(t, { engine: 'wants-worker-replaced' });
  await ready;
  process.kill(await pid('engine-0.0'), 'SIGUSR2');
  await note('engine-0.0.lost-worker.0');
  t.notOk(isAlive(await pid('worker-0.0')));
  await note('engine-0.0.ready-worker.1');
});

/** Far below the default, and still more than a busy machine takes from a healthy process. */
const patienceMs = 12_000;

t.test('Supervisor finds whoever stands still', { jobs: 3 }, (t) => {
  // They wait, all at the same time.
  const aside = { buffered: true };

  for (const role of ['frontend', 'worker', 'detokenizer'] as const)
    t.test(`a ${role} is replaced`, aside, async (t) => {
      const { ready, note, pid } = await start(t, {}, 30_000, 1, patienceMs);
      await ready;
      const old = await pid(`${role}-0.0`);
      process.kill(old, 'SIGSTOP');
      await note(`engine-0.0.lost-${role}.0`);
      await note(`engine-0.0.ready-${role}.1`);
      t.notOk(isAlive(old));
    });

  t.test('the server ends with the engine, and says why', aside, async (t) => {
    const { supervisor, ready, pid } = await start(t, {}, 30_000, 1, patienceMs);
    await ready;
    process.kill(await pid('engine-0.0'), 'SIGSTOP');
    const { exitCode, cause } = await supervisor.outcome;
    t.equal(exitCode, 1);
    t.match(cause, { process: 'engine', message: /^no sign of life for \d+ ms$/ });
  });

  for (const role of ['worker', 'frontend'] as const)
    t.test(`the start ends with a ${role} that never gets ready`, aside, async (t) => {
      const { supervisor } = await start(t, { [role]: 'stops' }, 30_000, 1, patienceMs);
      const { exitCode, cause } = await supervisor.outcome;
      t.equal(exitCode, 1);
      t.match(cause, { process: `${role} 0`, message: /^no sign of life for \d+ ms$/ });
    });
  t.end();
});
