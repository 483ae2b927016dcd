// Ranks that meet over TCP instead of in shared memory: the same bits, the same faults found and
// named, and nobody let in who does not show this group's tokens.
import { connect, type Socket } from 'node:net';
import t from 'tap';
import { rankTokens } from '../../../common/rank-tokens.ts';
import { meetingHost, networkGroup } from '../rank-group.ts';
import { generate, golden, loadAllReduce, prompt, startRanks, testFaults } from './ranks-suite.ts';

t.setTimeout(600_000);
const long = golden.slice(0, 6).flatMap((row) => row.prompt_ids);

t.test('the bits of shared memory, in chunks of any size', async (t) => {
  for (const numRanks of [2, 4]) {
    const run = async (overTcp: boolean, chunk: number) => {
      const { driver } = await startRanks(t, numRanks, { overTcp, maxNumLogits: 8 });
      const row = driver.add(0, long, { promptLogprobs: 5 });
      const { columns } = await driver.run([{ row, count: long.length }]);
      const sampled = driver.add(1, prompt, { temperature: 0.8, topP: 0.9, seed: 7n });
      const ids = await generate(driver, sampled, 60, chunk);
      return { logprobs: [...columns.promptLogprob, ...columns.promptTopLogprobs], ids };
    };
    const expected = await run(false, 512);
    t.ok(expected.logprobs.length > long.length);
    t.same(await run(true, 512), expected, `${numRanks} ranks`);
    t.same(await run(true, 7), expected, `${numRanks} ranks, chunks of 7`);
  }
});

t.test('all ranks run the kernels of the least of them', async (t) => {
  const host = meetingHost();
  const variants = ['', 'portable', ''] as const;
  const loads = variants.map((variant, rank) =>
    loadAllReduce(t, networkGroup(host, rank, 3), 64, variant),
  );
  for (const { device } of await Promise.all(loads)) t.match(device, /^cpu \(portable/);
});

t.test('ranks of different programs do not meet, and both know', async (t) => {
  const host = meetingHost();
  const [a, b] = [
    loadAllReduce(t, networkGroup(host, 0, 2)),
    loadAllReduce(t, networkGroup(host, 1, 2), 6400),
  ];
  const why = /^rank [01] has \d+ bytes of activations .* the ranks run different programs$/;
  await Promise.all([t.rejects(a, { message: why }), t.rejects(b, { message: why })]);
});

t.test('an address that is taken, or none, is named', async (t) => {
  const host = meetingHost();
  const ranks = [
    loadAllReduce(t, networkGroup(host, 0, 2)),
    loadAllReduce(t, networkGroup(host, 1, 2)),
  ];
  await Promise.all(ranks);
  await t.rejects(loadAllReduce(t, networkGroup('192.0.2.7', 0, 2)), {
    message: /^rank 0 cannot listen on 192\.0\.2\.7:29600: /,
  });
  await t.rejects(loadAllReduce(t, networkGroup('head', 0, 2)), { message: /^head:29600: / });
});

/** A greeting as kernels/host/tcp_join.cc has it. */
function greeting(token: Uint8Array, { from = 1, to = 0, kind = 0 } = {}): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.write('vtR1', 0, 'latin1');
  [kind, from, to, 2, 0].forEach((value, i) => bytes.writeInt32LE(value, 4 + 4 * i));
  bytes.set(token, 32);
  return bytes;
}

/** Connects until it is let in by the listener's backlog. */
async function dial(host: string): Promise<Socket> {
  for (;;) {
    const socket = connect(29_600, host);
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    if (isOpen) return socket;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

t.test('strangers are turned away, and the ranks meet nevertheless', async (t) => {
  const host = meetingHost();
  const waiting = loadAllReduce(t, networkGroup(host, 0, 2));
  const { shownTokens, expectedTokens } = rankTokens(host, 1, 2);
  const right = shownTokens.subarray(0, 32);
  const attempts: readonly (readonly [string, Buffer])[] = [
    ['a wrong token', greeting(rankTokens('another secret', 1, 2).shownTokens.subarray(0, 32))],
    ['the token of the other direction', greeting(expectedTokens.subarray(0, 32))],
    ['the data token for news', greeting(right, { kind: 1 })],
    ['a rank that is none', greeting(right, { from: 7 })],
    ['the rank itself', greeting(right, { from: 0 })],
    ['another addressee', greeting(right, { to: 1 })],
    ['no such connection', greeting(right, { kind: 9 })],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\nhost: somewhere\r\n\r\n'.padEnd(80))],
  ];
  for (const [what, bytes] of attempts) {
    const socket = await dial(host);
    let answer = 0;
    socket.on('data', (data) => (answer += data.length)).on('error', () => undefined);
    const closed = new Promise((resolve) => socket.on('close', resolve));
    socket.write(bytes);
    await closed;
    t.equal(answer, 0, `${what}: turned away without a word`);
  }
  // Some that stay and say nothing.
  const silent = await Promise.all(Array.from({ length: 100 }, () => dial(host)));
  for (const socket of silent) socket.on('error', () => undefined);
  await Promise.all([waiting, loadAllReduce(t, networkGroup(host, 1, 2))]);
  for (const socket of silent) socket.destroy();
});

testFaults(
  { overTcp: true },
  /^rank 2 did not come to the step's first op \(op 0 of step 1\) within 5 s; it was last in op [1-9]\d* of step 0/,
);
