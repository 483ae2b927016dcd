// How ranks tell each other, while they load, where their memory lies: at unix sockets beside a path,
// or over TCP. Several processes, some late; one that does not come, or goes, is named.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { meetingHost } from '../rank-group.ts';
import { findCxx } from './cxx.ts';

function folderOf(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'vt-exchange-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

async function build(t: Test): Promise<string> {
  const output = join(folderOf(t), 'run');
  const sources = [
    'test/kernels/cuda/exchange_run.cc',
    'kernels/cuda/host/rank_exchange.cc',
    'kernels/host/tcp_join.cc',
    'kernels/host/tcp_socket.cc',
  ];
  const flags = ['-std=c++17', '-O1', '-pthread', `-I${packageRoot}`, '-o', output];
  (await findCxx()).compile([...flags, ...sources]);
  return output;
}

async function runRank(program: string, args: readonly (string | number)[]) {
  const child = spawn(program, args.map(String), { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  await once(child, 'close');
  return { status: child.exitCode, stdout, stderr };
}

t.test('ranks exchange messages, round by round', async (t) => {
  const program = await build(t);
  const folder = folderOf(t);
  const numRanks = 4;
  const numRounds = 6;
  const wanted = Array.from({ length: numRounds }, (_, round) =>
    Array.from({ length: numRanks }, (_, rank) => `rank ${rank} round ${round};`).join(''),
  );
  for (const meeting of [join(folder, 'ranks'), `${meetingHost()}:29600`]) {
    const ranks = Array.from({ length: numRanks }, async (_, rank) => {
      await sleep(rank * 30);
      return runRank(program, [meeting, rank, numRanks, numRounds, 120_000]);
    });
    for (const { status, stdout, stderr } of await Promise.all(ranks)) {
      t.equal(status, 0, stderr);
      t.same(stdout.trim().split('\n'), wanted);
    }
  }
  t.same(readdirSync(folder), [], 'the sockets are gone');

  const alone = await runRank(program, [join(folder, 'others'), 1, 2, 1, 20]);
  t.equal(alone.status, 1);
  t.match(alone.stderr, /rank 0 \(.*\) did not join rank 1/);
  const path = join(folder, 'more');
  const [, early] = await Promise.all([
    runRank(program, [path, 0, 2, 1, 120_000]),
    runRank(program, [path, 1, 2, 2, 120_000]),
  ]);
  t.equal(early.status, 1);
  t.match(early.stderr, 'rank 0 ended while rank 1 was loading');
});
