// What sanitize.py makes of what compute-sanitizer says, which a script plays here: a run that has
// not ended, or in which nothing ran, is not good.
import { spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../../common/package-root.ts';

const noPython = spawnSync('python3', ['--version']).status === 0 ? false : 'no python3';
const same = "echo '0 rows with other tokens'";
const race = (kernel: string) =>
  `echo '========= Error: Race reported between Write access at void vt::${kernel}<int>(A)+0x10'
   echo '=========     and Read access at void vt::${kernel}<int>(A)+0x80 [32 hazards]'`;

interface Case {
  readonly what: string;
  readonly script: string;
  readonly limit?: number;
  readonly verdict: RegExp;
}
const cases: readonly Case[] = [
  { what: 'nothing found', script: same, verdict: /^ok .*nothing found/ },
  {
    what: 'does not end',
    script: `${same}\nsleep 600`,
    limit: 2,
    verdict: /^not ended .*not over/,
  },
  { what: 'ends without its steps', script: 'exit 0', verdict: /^BAD .*nothing found/ },
  { what: 'fails after its steps', script: `${same}\nexit 1`, verdict: /^BAD .*ended with 1/ },
  { what: 'other tokens', script: "echo '2 rows with other tokens'", verdict: /^BAD .*2 rows/ },
  {
    what: 'an access out of bounds',
    script: `${same}\necho '========= Invalid __global__ read of size 4 bytes'\nexit 9`,
    verdict: /^BAD .*Invalid __global__ read/,
  },
  {
    what: 'a race',
    script: `${same}\n${race('rms_norm')}\nexit 9`,
    verdict: /^BAD .*not explained: read in rms_norm and write in rms_norm/,
  },
  {
    what: 'a race that is explained',
    script: `${same}\n${race('attention_decode')}\nexit 9`,
    verdict: /^ok .*1 reports, one lane arrives/,
  },
];

t.test('verdicts of runs under compute-sanitizer', { skip: noPython }, (t) => {
  const python = join(packageRoot, 'test/kernels/cuda/sanitize.py');
  const tool = join(t.testdir(), 'compute-sanitizer');
  for (const { what, script, limit = 600, verdict } of cases) {
    writeFileSync(tool, `#!/bin/sh\n${script}\n`);
    chmodSync(tool, 0o755);
    const options = ['--tools', 'racecheck', '--ways', 'default'];
    const more = ['--limit', String(limit), '--sanitizer', tool];
    const run = spawnSync('python3', [python, 'library', 'program', ...options, ...more], {
      encoding: 'utf8',
    });
    const good = verdict.source.startsWith('^ok');
    t.match(run.stdout, verdict, what);
    t.equal(run.status, good ? 0 : 1, `${what}: exit status`);
    const counts = /^(\d) without a fault, (\d) with one, (\d) not ended$/m.exec(run.stdout);
    const of = verdict.source.startsWith('^not') ? [0, 0, 1] : good ? [1, 0, 0] : [0, 1, 0];
    t.same(counts?.slice(1).map(Number), of, `${what}: counts`);
  }
  t.end();
});
