// The collectives of kernels/cuda without a GPU: their sources compiled for the CPU over
// emulation/, which runs CUDA's threads as fibers in an order drawn from a seed. Random calls on
// 2 to 8 ranks give the sum in rank order, bit for bit, with nothing read late; a rank that does
// not come is named. Where linears send their sums themselves, layer after layer gives the bits of
// plain loops, and no value is sent to where one still lies. Weak memory and speed are the business
// of check_collective.py, on GPUs.
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { emulate } from './emulate.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';

t.test('collectives over fibers', { skip }, async (t) => {
  t.setTimeout(600_000);
  const kernels = ['all_reduce.cu', 'group.cu'];
  const program = await emulate(t, 'run_collectives.cc', kernels);
  const check = (seed: number, what: string, wanted: RegExp) => {
    const { stdout, stderr, status } = spawnSync(program, [String(seed), what], {
      encoding: 'utf8',
    });
    t.match(stdout, wanted, `seed ${seed}: ${stdout}${stderr}`);
    t.equal(status, 0);
  };
  for (let seed = 1; seed <= 9; seed++) check(seed, '18', /^18 calls on \d ranks: 0 wrong\n$/);
  for (let seed = 1; seed <= 3; seed++)
    check(seed, 'fault', /^rank \d of \d was missed in call 3\n$/);
});

t.test('linears that send, layer after layer', { skip }, async (t) => {
  t.setTimeout(600_000);
  const program = await emulate(t, 'run_chain.cc', ['all_reduce.cu', 'group.cu']);
  for (let seed = 1; seed <= 4; seed++) {
    const { stdout, stderr, status } = spawnSync(program, [String(seed)], { encoding: 'utf8' });
    t.match(
      stdout,
      /^\d+ layers of \d+ x \d+ on \d ranks: 0 wrong, 0 lost\n$/,
      `seed ${seed}: ${stdout}${stderr}`,
    );
    t.equal(status, 0);
  }
});
