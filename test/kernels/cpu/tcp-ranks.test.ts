// Ranks that meet over TCP instead of in shared memory: the same bits, the same faults found and
// named, and nobody let in who does not show this group's tokens.
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';

import type { Backend } from '../../../kernels/backend.ts';
import { CpuBackend } from '../../../kernels/cpu-backend.ts';
import type { Op } from '../../../kernels/program.ts';
import { rankTokens } from '../../../common/rank-tokens.ts';
import { demoFolder } from '../demo-backend.ts';
import { readGolden } from '../golden.ts';
import { loadRanks, meetingHost, networkGroup, type RankOptions } from '../rank-group.ts';
import { StepDriver, type TestRow } from '../step-driver.ts';
import { arg, makeProgram } from './one-op.ts';
import { defaultLoad } from './harness.ts';

t.setTimeout(600_000);
const golden = readGolden('test/fixtures/demo/golden.json');
const prompt = golden[0]!.prompt_ids;
const long = golden.slice(0, 6).flatMap((row) => row.prompt_ids);

async function start(t: Test, numRanks: number, options: RankOptions = {}) {
  const { backend } = await loadRanks(demoFolder, numRanks, { overTcp: true, ...options });
  t.teardown(() => backend.close());
  return { backend, driver: new StepDriver(backend, 16, 256) };
}

async function generate(driver: StepDriver, row: TestRow, count: number, chunk: number) {
  while (row.tokens.length < row.numPromptTokens + count) {
    const pending = row.tokens.length - row.numComputed;
    await driver.run([{ row, count: Math.min(chunk, pending) }]);
  }
  return row.tokens.slice(row.numPromptTokens);
}

t.test('the bits of shared memory, in chunks of any size', async (t) => {
  for (const numRanks of [2, 4]) {
    const run = async (overTcp: boolean, chunk: number) => {
      const { driver } = await start(t, numRanks, { overTcp, maxNumLogits: 8 });
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
  const loads = variants.map((variant, rank) => loadOne(t, host, rank, { variant, numRanks: 3 }));
  for (const { device } of await Promise.all(loads)) t.match(device, /^cpu \(portable/);
});

/** A rank of one allReduce. */
function loadOne(
  t: Test,
  host: string,
  rank: number,
  {
    columns = 64,
    numRanks = 2,
    variant,
  }: { columns?: number; numRanks?: number; variant?: '' | 'portable' } = {},
) {
  const op: Op = { op: 'allReduce', args: { out: arg.buffer(0), x: arg.buffer(1) }, attrs: {} };
  const program = makeProgram({ ops: [op], buffers: [{ columns }, { columns }], rows: [] }, 4);
  const backend = new CpuBackend(variant);
  t.teardown(() => backend.close());
  const group = networkGroup(host, rank, numRanks);
  return backend.load({ ...defaultLoad, program, weights: [], ...group });
}

t.test('ranks of different programs do not meet, and both know', async (t) => {
  const host = meetingHost();
  const [a, b] = [loadOne(t, host, 0), loadOne(t, host, 1, { columns: 6400 })];
  const why = /^rank [01] has \d+ bytes of activations .* the ranks run different programs$/;
  await Promise.all([t.rejects(a, { message: why }), t.rejects(b, { message: why })]);
});

t.test('an address that is taken, or none, is named', async (t) => {
  const host = meetingHost();
  const ranks = [loadOne(t, host, 0), loadOne(t, host, 1)];
  await Promise.all(ranks);
  await t.rejects(loadOne(t, '192.0.2.7', 0), {
    message: /^rank 0 cannot listen on 192\.0\.2\.7:29600: /,
  });
  await t.rejects(loadOne(t, 'head', 0), { message: /^head:29600: / });
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
  const waiting = loadOne(t, host, 0);
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
  await Promise.all([waiting, loadOne(t, host, 1)]);
  for (const socket of silent) socket.destroy();
});

/** The errors of some ranks, in rank order. */
function errorsOf(ranks: readonly Backend[]) {
  return Promise.all(
    ranks.map((rank) => new Promise<Error>((resolve) => (rank.onError = resolve))),
  );
}

t.test('a rank that does not come is named, with step and op, and nobody waits on', async (t) => {
  // Far above what a busy machine takes from a rank that goes on.
  const { backend, driver } = await start(t, 4, { timeoutMs: 5000 });
  const row = driver.add(0, prompt);
  await driver.run([{ row, count: prompt.length }]);
  backend.ranks[2]!.submit = () => undefined;
  const errors = errorsOf(backend.ranks.filter((_, rank) => rank !== 2));
  void driver.run([{ row, count: 1 }]).catch(() => undefined);
  for (const error of await errors) {
    t.match(error, { name: 'KernelError', rank: 2, step: 1 });
    t.match(
      error.message,
      /^rank 2 did not come to the step's first op \(op 0 of step 1\) within 5 s; it was last in op [1-9]\d* of step 0/,
    );
  }
});

t.test('a rank that samples other tokens is named at the next step', async (t) => {
  for (const [numRanks, odd] of [
    [2, 1],
    [4, 0],
  ] as const) {
    const { backend } = await start(t, numRanks);
    const drivers = backend.ranks.map((rank) => new StepDriver(rank, 16, 256));
    const rows = drivers.map((driver, rank) =>
      driver.add(0, prompt, { temperature: 5, topK: 50, seed: rank === odd ? 1n : 0n }),
    );
    await Promise.all(
      drivers.map((driver, i) => driver.run([{ row: rows[i]!, count: prompt.length }])),
    );
    const errors = errorsOf(backend.ranks);
    for (const [i, driver] of drivers.entries())
      void driver.run([{ row: rows[i]!, count: 1 }]).catch(() => undefined);
    for (const error of await errors)
      t.match(error, { rank: odd, message: /disagrees with the others at .* of step 1/ });
  }
});

t.test('a rank that ends lets the others go at once', async (t) => {
  const { backend, driver } = await start(t, 4, { timeoutMs: 600_000 });
  const row = driver.add(0, prompt);
  await driver.run([{ row, count: prompt.length }]);
  backend.ranks[3]!.submit = () => undefined;
  const errors = errorsOf(backend.ranks.slice(0, 3));
  void driver.run([{ row, count: 1 }]).catch(() => undefined);
  await backend.ranks[3]!.close();
  for (const error of await errors) t.match(error, { rank: 3, message: 'rank 3 has ended' });
});
