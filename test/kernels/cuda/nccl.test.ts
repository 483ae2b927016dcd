// Collectives over NCCL without a GPU: the host's code over fake-device/, whose NCCL moves parts
// through a file and whose streams are threads. Which way is chosen, with which bits, that what
// sampleSharded tells of rows is carried, and that a rank that stays away, goes or stands still is
// found and named. GPUs: check_nccl.py.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { meetingHost } from '../rank-group.ts';
import { findCxx } from './cxx.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';
t.setTimeout(600_000);

const sources = [
  'test/kernels/cuda/fake-device/nccl_run.cc',
  'test/kernels/cuda/fake-device/fake_kernels.cc',
  ...['rank_group', 'rank_exchange', 'nccl', 'nccl_ranks', 'nccl_watch', 'find_library'].map(
    (name) => `kernels/cuda/host/${name}.cc`,
  ),
  ...['tcp_join', 'tcp_news', 'tcp_socket'].map((name) => `kernels/host/${name}.cc`),
];

/** A folder with the program and libnccl.so.2. */
async function build(t: Test, ...defines: string[]): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'vt-nccl-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const cxx = await findCxx();
  const includes = ['-Itest/kernels/cuda/fake-device', `-I${packageRoot}`];
  const compile = (...more: string[]) =>
    cxx.compile(['-std=c++17', '-O1', '-pthread', ...includes, ...more]);
  const library = join(folder, 'libnccl.so.2');
  const fake = 'test/kernels/cuda/fake-device/fake_nccl.cc';
  compile('-fPIC', '-shared', ...defines, fake, '-o', library);
  if (defines.length === 0) compile(...sources, '-rdynamic', '-ldl', '-o', join(folder, 'run'));
  return folder;
}

const shared = build(t);
let numMeetings = 0;

interface Options {
  readonly collectives?: string;
  readonly numRanks?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly meeting?: string;
  /** Where libnccl.so.2 is. */
  readonly libraries?: string;
}

/** What each rank printed. */
async function runRanks(t: Test, what: string, options: Options = {}): Promise<string[]> {
  const folder = await shared;
  const { collectives = 'nccl', numRanks = 2, env = {}, libraries = folder } = options;
  const meeting = options.meeting ?? join(folder, `ranks${numMeetings++}`);
  const ranks = Array.from({ length: numRanks }, async (_, rank) => {
    const args = [meeting, String(rank), String(numRanks), collectives, what];
    const child = spawn(join(folder, 'run'), args, {
      env: { ...process.env, VLLM_TS_CUDA_LIBS: libraries, HOME: folder, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    let text = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (data: Buffer) => (text += data.toString()));
    // The one that stands still never ends.
    const stands = what === 'stop' && rank === numRanks - 1;
    if (!stands) await once(child, 'close');
    return text;
  });
  return Promise.all(ranks);
}

const note = /^note: collectives: NCCL 2\.28\.9 \(\/.*libnccl\.so\.2\), because /;
const ours = /sums in rank order\n0 wrong, our bits\n$/;

t.test('the bits of our own kernels, whatever the sizes', { skip }, async (t) => {
  for (const numRanks of [2, 3])
    for (const text of await runRanks(t, 'sums', { numRanks })) {
      t.match(text, note);
      t.match(text, ours);
    }
});

t.test('with --fast-math NCCL adds, and the log says so', { skip }, async (t) => {
  const [text] = await runRanks(t, 'sums', { collectives: 'auto+fast', numRanks: 3 });
  t.match(text, /because of --fast-math; it adds in its own order: tokens may depend/);
  t.match(text, /0 wrong, other bits/);
});

t.test('who carries', { skip }, async (t) => {
  const noteOf = async (options: Options) => (await runRanks(t, 'note', options))[1];
  const far = { FAKE_PEER: '0' };
  t.equal(await noteOf({ collectives: 'auto' }), 'note: \n', 'our own kernels, where they can');
  t.equal(await noteOf({ collectives: 'auto+fast' }), 'note: \n', 'for two ranks always');
  t.equal(await noteOf({ collectives: 'peer+fast', numRanks: 3 }), 'note: \n', 'or if asked for');
  t.match(await noteOf({ collectives: 'auto', env: far }), /because GPUs 0 and 1 cannot reach/);
  t.match(
    await noteOf({ collectives: 'peer', env: far }),
    /^VLLM_TS_CUDA_COLLECTIVES=peer: GPUs 1 and 0 cannot reach each other's memory/,
  );
  const one = { env: { FAKE_GPUS: '1' } };
  t.match(await noteOf({ collectives: 'peer', ...one }), /^ranks 0 and 1 have the same GPU/);
  t.equal(await noteOf({ collectives: 'shared', ...one }), 'note: \n', 'unless they may share it');
  const absent = { libraries: '/nonexistent' };
  t.equal(await noteOf({ collectives: 'auto+fast', numRanks: 3, ...absent }), 'note: \n');
});

t.test('ranks that are hosts of their own meet over TCP', { skip }, async (t) => {
  const meeting = `${meetingHost()}:29600`;
  for (const text of await runRanks(t, 'sums', { collectives: 'auto', numRanks: 3, meeting })) {
    t.match(text, /because the ranks are on several hosts/);
    t.match(text, ours);
  }
});

t.test('an NCCL that is missing or not whole is named, by every rank', { skip }, async (t) => {
  const needed = "the ranks' collectives need NCCL, because VLLM_TS_CUDA_COLLECTIVES asks for it: ";
  for (const text of await runRanks(t, 'note', { env: { FAKE_NCCL: 'old' } }))
    t.match(text, /: NCCL 2\.16\.0 is too old: 2\.18 is needed\n$/);
  const partial = await build(t, '-DncclCommAbort=something_else');
  for (const text of await runRanks(t, 'note', { libraries: partial })) {
    t.match(text, needed);
    t.match(text, 'libnccl.so.2: ncclCommAbort is missing');
  }
});

t.test('a rank that does not come is named, by all, and the group ends', { skip }, async (t) => {
  const ways = ['stay', 'stay-away', 'stop'].map(async (what) =>
    runRanks(t, what, { numRanks: 3 }),
  );
  for (const texts of await Promise.all(ways))
    for (const text of texts.slice(0, 2)) {
      t.match(text, 'then: NCCL, all-gather: the group was ended');
      t.match(text, /rank 2, op 3, epoch 10: (rank 2 did not come to op 3)?\n$/);
    }
});

t.test('a rank that is gone is named', { skip }, async (t) => {
  for (const text of (await runRanks(t, 'die', { numRanks: 3 })).slice(0, 2))
    t.match(text, /rank 2, op \d, epoch \d+: rank 2 is gone: its connection has ended\n$/);
});

t.test('what NCCL says of itself is the error', { skip }, async (t) => {
  const [text] = await runRanks(t, 'stay', { env: { FAKE_NCCL: 'error 2' } });
  // By the call that fails, or by the watch of either rank if that looks first.
  t.match(text, /NCCL(, all-gather)?: remote error: a wire is cut/);
});
