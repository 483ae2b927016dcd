import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { curveKeyPair, Dealer } from 'zeromq';
import { encodeMessage } from '../../../common/wire/codec.ts';
import {
  DealerLink,
  maxHelloBytes,
  RouterLink,
  type AnyMessage,
  type CurveKeys,
  type PeerId,
} from '../../../common/wire/transport.ts';

function address(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'vt-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return `ipc://${folder}/a.sock`;
}

/** A router that writes down what happens; `until` waits for a line. */
async function recorder(t: Test, where: string, curve?: CurveKeys, maxUnread = 0) {
  const lines: string[] = [];
  const peers: PeerId[] = [];
  let wake: (() => void)[] = [];
  const add = (peer: PeerId, what: string) => {
    if (!peers.includes(peer)) peers.push(peer);
    lines.push(`${peers.indexOf(peer)} ${what}`);
    for (const f of wake) f();
    wake = [];
  };
  const router = await RouterLink.bind(
    where,
    {
      message: (peer, message) => {
        add(peer, message.kind);
        if (message.kind === 'refuseMe')
          router.refuse(peer, { kind: 'refused', message: 'no', protocol: 2, build: null });
        if (message.kind === 'echo')
          router.send(peer, { kind: 'echoed', n: message['n'] } as never);
      },
      disconnected: (peer) => add(peer, 'gone'),
      rejected: (peer, error) => add(peer, `rejected: ${error.message}`),
    },
    { curve: curve ?? null, maxUnread },
  );
  t.teardown(() => router.close());
  const until = async (line: string) => {
    while (!lines.includes(line)) await new Promise<void>((resolve) => wake.push(resolve));
  };
  return { router, lines, peers, until };
}

/** A dealer that counts hellos by itself; `next` waits for a message. */
function dealer(t: Test, where: string, curve?: CurveKeys) {
  const messages: AnyMessage[] = [];
  let numLost = 0;
  let wake: () => void = () => undefined;
  const link = new DealerLink(
    where,
    { kind: 'hello' },
    {
      message: (message) => {
        messages.push(message);
        wake();
      },
      rejected: () => t.fail('rejected'),
      disconnected: () => {
        numLost++;
        wake();
      },
    },
    curve,
  );
  t.teardown(() => link.close());
  const wait = async (condition: () => boolean) => {
    while (!condition()) await new Promise<void>((resolve) => (wake = resolve));
  };
  const next = async () => {
    await wait(() => messages.length > 0);
    return messages.shift()!;
  };
  return { link, next, lost: (n: number) => wait(() => numLost >= n) };
}

t.test('RouterLink answers a peer and notices that it left', async (t) => {
  const { router, lines, until } = await recorder(t, address(t));
  const { link, next } = dealer(t, router.address);
  link.send({ kind: 'echo', n: 5 } as never);
  t.match(await next(), { kind: 'echoed', n: 5 });
  t.same(lines, ['0 hello', '0 echo']);
  link.close();
  await until('0 gone');
  t.equal(router.numPeers, 0);
  router.send('00', { kind: 'nobody' });
});

t.test('a peer that reads nothing is given up at its bound, and nobody else', async (t) => {
  const { router, lines, peers, until } = await recorder(t, address(t), undefined, 100);
  const good = dealer(t, router.address);
  good.link.send({ kind: 'echo', n: 1 } as never);
  await good.next();
  // A socket that never reads and buffers nothing of its own.
  const idle = new Dealer({ linger: 0, receiveHighWaterMark: 1 });
  t.teardown(() => idle.close());
  idle.connect(router.address);
  await idle.send(encodeMessage({ kind: 'hello' }));
  await until('1 hello');
  const columns = { a: new Uint8Array(10_000) };
  for (let n = 0; n < 2000 && !lines.includes('1 gone'); n++) {
    router.send(peers[1]!, { kind: 'unread', n, columns } as never);
    await new Promise(setImmediate);
  }
  t.ok(lines.includes('1 gone'), 'given up');
  t.equal(router.numPeers, 1);
  await idle.send(encodeMessage({ kind: 'late' }));
  good.link.send({ kind: 'echo', n: 2 } as never);
  t.match(await good.next(), { kind: 'echoed', n: 2 });
  t.same(lines, ['0 hello', '0 echo', '1 hello', '1 gone', '0 echo'], 'and never heard again');
});

t.test('messages of many sizes arrive whole and in order', async (t) => {
  const { router } = await recorder(t, address(t));
  const { link, next } = dealer(t, router.address);
  const numbers: unknown[] = [];
  for (let n = 0; n < 500; n++) {
    const columns = { a: new Uint8Array((n * 7919) % 70_000) };
    link.send({ kind: 'echo', n, ...(n % 2 === 0 && { columns }) } as never);
  }
  while (numbers.length < 500) numbers.push((await next())['n']);
  t.same(
    numbers,
    Array.from({ length: 500 }, (_, n) => n),
  );
});

t.test('the event loop turns while a burst comes in', async (t) => {
  const where = address(t);
  const numMessages = 200;
  let numHandled = 0;
  let longestRun = 0;
  let run = 0;
  let ended!: () => void;
  const whenEnded = new Promise<void>((resolve) => (ended = resolve));
  const router = await RouterLink.bind(where, {
    message: (_, { kind }) => {
      if (kind !== 'echo') return;
      if (run === 0) setImmediate(() => (run = 0));
      longestRun = Math.max(longestRun, ++run);
      if (++numHandled === numMessages) ended();
    },
    disconnected: () => undefined,
    rejected: () => t.fail('rejected'),
  });
  t.teardown(() => router.close());
  const { link } = dealer(t, where);
  for (let n = 0; n < numMessages; n++) link.send({ kind: 'echo', n } as never);
  await whenEnded;
  t.ok(longestRun < 50, `${longestRun} messages at once`);
});

t.test('a lost connection is a new session: hello first, nothing from before', async (t) => {
  const where = address(t);
  const first = await recorder(t, where);
  const { link, next, lost } = dealer(t, where);
  link.send({ kind: 'echo', n: 1 } as never);
  await next();
  first.router.close();
  await lost(1);
  link.send({ kind: 'stale' });
  const second = await recorder(t, where);
  await second.until('0 hello');
  link.send({ kind: 'echo', n: 2 } as never);
  t.match(await next(), { n: 2 });
  t.same(second.lines, ['0 hello', '0 echo']);
});

t.test('a dealer may be there first', async (t) => {
  const where = address(t);
  const { link, next } = dealer(t, where);
  link.send({ kind: 'echo', n: 3 } as never);
  const { lines } = await recorder(t, where);
  t.match(await next(), { n: 3 });
  t.same(lines, ['0 hello', '0 echo']);
});

t.test('a refused peer is told, and not read again; others are', async (t) => {
  const { router, lines, until } = await recorder(t, address(t));
  const bad = dealer(t, router.address);
  bad.link.send({ kind: 'refuseMe' });
  bad.link.send({ kind: 'afterwards' });
  t.match(await bad.next(), { kind: 'refused', message: 'no' });
  const good = dealer(t, router.address);
  good.link.send({ kind: 'echo', n: 1 } as never);
  await good.next();
  bad.link.close();
  await until('0 gone');
  t.notOk(lines.includes('0 afterwards'));
});

t.test('a stranger whose first message is no hello is rejected unread', async (t) => {
  const { router, until, lines } = await recorder(t, address(t));
  const strangers: Uint8Array[][] = [
    encodeMessage({ kind: 'hello', columns: { a: new Uint8Array(8) } }),
    encodeMessage({ kind: 'hello', token: 'x'.repeat(maxHelloBytes) } as never),
    [Uint8Array.of(0xc1)],
  ];
  for (const [i, frames] of strangers.entries()) {
    const socket = new Dealer({ linger: 0 });
    socket.connect(router.address);
    await socket.send(frames);
    await socket.send(encodeMessage({ kind: 'echo' }));
    const why = i < 2 ? 'the first message is not a hello' : 'msgpack type 0xc1 is not allowed';
    await until(`${i} rejected: ${why}`);
    socket.close();
    await until(`${i} gone`);
  }
  t.notOk(lines.some((line) => line.endsWith('echo')));
});

t.test('over tcp only who knows the server’s key gets in', async (t) => {
  const keys = curveKeyPair();
  const { router, lines } = await recorder(t, 'tcp://127.0.0.1:*', { ...keys, serverKey: null });
  t.match(router.address, /^tcp:\/\/127\.0\.0\.1:\d+$/);
  const wrong = dealer(t, router.address, {
    ...curveKeyPair(),
    serverKey: curveKeyPair().publicKey,
  });
  const plain = dealer(t, router.address);
  wrong.link.send({ kind: 'echo' });
  plain.link.send({ kind: 'echo' });
  const right = dealer(t, router.address, { ...curveKeyPair(), serverKey: keys.publicKey });
  right.link.send({ kind: 'echo', n: 1 } as never);
  t.match(await right.next(), { n: 1 });
  right.link.send({ kind: 'echo', n: 2 } as never);
  t.match(await right.next(), { n: 2 });
  t.same(lines, ['0 hello', '0 echo', '0 echo']);
});

t.test('a socket path that is too long is refused by name', async (t) => {
  const long = `ipc:///tmp/${'x'.repeat(100)}`;
  const events = {
    message: () => undefined,
    disconnected: () => undefined,
    rejected: () => undefined,
  };
  await t.rejects(RouterLink.bind(long, events), /over 100 bytes: \/tmp\/xxx/);
  t.throws(() => new DealerLink(long, { kind: 'hello' }, events), /over 100 bytes/);
});

t.test('closing with unsent data does not hold the process', (t) => {
  const transport = new URL('../../../common/wire/transport.js', import.meta.url).href;
  const script = `
    import { DealerLink, RouterLink } from '${transport}';
    const events = { message() {}, rejected() {}, disconnected() {} };
    const dealer = new DealerLink('ipc:///tmp/vt-nobody-${process.pid}', { kind: 'hello' }, events);
    for (let i = 0; i < 100; i++) dealer.send({ kind: 'x', columns: { a: new Uint8Array(1 << 20) } });
    const router = await RouterLink.bind('ipc:///tmp/vt-close-${process.pid}', events);
    router.close();
    dealer.close();`;
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    timeout: 600_000,
    encoding: 'utf8',
  });
  t.equal(run.stderr, '');
  t.equal(run.status, 0);
  t.end();
});

t.test('RouterLink hands on nothing before bind has returned', async (t) => {
  for (let i = 0; i < 3; i++) {
    const where = address(t);
    const events = { message: () => undefined, rejected: () => undefined };
    const dealer = new DealerLink(where, { kind: 'hello' }, events);
    let router: RouterLink | null = null;
    await new Promise<void>((resolve) => {
      const bound = RouterLink.bind(where, {
        message: () => {
          t.not(router, null);
          resolve();
        },
        disconnected: () => undefined,
        rejected: () => undefined,
      });
      // This thread is busy while zeromq's own binds, connects and receives.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
      // As late as an await of an await has it.
      void bound.then(async (link) => {
        await Promise.resolve();
        router = link;
      });
    });
    dealer.close();
    (router as RouterLink | null)?.close();
  }
});

t.test('a link that a signal interrupts while it connects connects all the same', async (t) => {
  const where = address(t);
  const { lines, until } = await recorder(t, where);
  const interrupted = Object.assign(new Error('Interrupted system call'), { code: 'EINTR' });
  const connect = Reflect.get(Dealer.prototype, 'connect');
  const replace = (value: (this: Dealer, to: string) => void) =>
    Object.defineProperty(Dealer.prototype, 'connect', { value, configurable: true });
  let left = 3;
  replace(function (to) {
    if (left-- > 0) throw interrupted;
    connect.call(this, to);
  });
  t.teardown(() => replace(connect));
  dealer(t, where);
  await until('0 hello');
  t.same(lines, ['0 hello'], 'the sockets of the tries before are gone');
  replace(() => {
    throw Object.assign(new Error('no'), { code: 'EMFILE' });
  });
  t.throws(() => dealer(t, where), { code: 'EMFILE' }, 'nothing else is repeated');
});
