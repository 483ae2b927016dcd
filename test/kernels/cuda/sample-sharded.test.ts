// sampleSharded of kernels/cuda without a GPU: its sources over emulation/, in orders drawn from
// seeds. Rows of every kind on 2, 3, 4 and 8 ranks have the answers, bit for bit, that the sampler of
// one GPU has with all logits, whether ranks told a best id, all candidates or the likeliest, or
// gathered all logits, and told logprobs in a second round or not.
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { emulate } from './emulate.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';

t.test('rows sampled by ranks, over fibers', { skip }, async (t) => {
  t.setTimeout(600_000);
  const kernels = [
    'sample.cu',
    'sample_sharded.cu',
    'sample_sharded_logits.cu',
    'sample_sharded_logprobs.cu',
    'group.cu',
  ];
  const program = await emulate(t, 'run_samples.cc', kernels);
  const told = [0, 0, 0, 0, 0, 0];
  for (const seed of [1, 2, 3, 5, 11, 19, 26, 101, 106, 109, 118, 130]) {
    const { stdout, stderr, status } = spawnSync(program, [String(seed)], { encoding: 'utf8' });
    t.equal(status, 0, `seed ${seed}: ${stdout}${stderr}`);
    const counts =
      /complete: (\d+), (\d+) gathered; likeliest: (\d+), (\d+) gathered; others gathered: (\d+), logprobs in a round: (\d+)/.exec(
        stdout,
      );
    counts?.slice(1).forEach((count, i) => (told[i]! += Number(count)));
  }
  t.ok(
    told.every((count) => count > 1),
    `rows by complete lists, by the likeliest, and gathered; logprobs in a round: ${told.join(', ')}`,
  );
});
