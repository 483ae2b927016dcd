// Sums of parts that NCCL brought, and parts side by side, over fibers on the CPU: the bits of
// allReduce and rmsNorm, whatever the sizes. GPUs are the business of check_nccl.py.
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { emulate } from './emulate.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';

t.test('sums and joins of parts', { skip }, async (t) => {
  t.setTimeout(600_000);
  const program = await emulate(t, 'run_parts.cc', ['parts.cu']);
  for (let seed = 1; seed <= 3; seed++) {
    const run = spawnSync(program, [String(seed), '40'], { encoding: 'utf8' });
    t.equal(run.stdout, '40 calls: 0 wrong\n', run.stderr);
    t.equal(run.status, 0);
  }
});
