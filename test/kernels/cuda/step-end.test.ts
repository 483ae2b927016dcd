// sample with a step's end behind it, over fibers (emulation/): what it leaves to host and next step
// is what the two kernels leave one after the other, of rows that go on, end, have ended or are unfit.
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { emulate } from './emulate.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';

t.test('a step of one row ends in its sampling kernel', { skip }, async (t) => {
  t.setTimeout(600_000);
  const kernels = ['sample.cu', 'host/results.cu', 'host/sample_and_finish.cu'];
  const program = await emulate(t, 'run_ends.cc', kernels);
  const ends = new Set<string>();
  for (let seed = 1; seed <= 30; seed++) {
    const { stdout, stderr, status } = spawnSync(program, [String(seed)], { encoding: 'utf8' });
    t.equal(status, 0, `seed ${seed}: ${stdout}${stderr}`);
    ends.add(/end (\d)/.exec(stdout)?.[1] ?? 'none');
  }
  t.same([...ends].sort(), ['0', '1', '2'], 'rows that go on, ended and unfit rows');
});
