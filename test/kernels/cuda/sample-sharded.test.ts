// sampleSharded of kernels/cuda without a GPU: its sources over emulation/, in orders drawn from
// seeds. Rows of every kind on 2, 3, 4 and 8 ranks have the answers, bit for bit, that the sampler of
// one GPU has with all logits, whether ranks told a best id, candidates, or all of them, and told
// logprobs in a second round or not.
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { emulate } from './emulate.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';

t.test('rows sampled by ranks, over fibers', { skip }, async (t) => {
  t.setTimeout(600_000);
  const kernels = ['sample.cu', 'sample_sharded.cu', 'sample_sharded_logprobs.cu', 'group.cu'];
  const program = await emulate(t, 'run_samples.cc', kernels);
  const told = [0, 0, 0, 0, 0];
  for (const seed of [2, 3, 5, 7, 13, 16, 31, 37, 56, 77, 88, 94]) {
    const { stdout, stderr, status } = spawnSync(program, [String(seed)], { encoding: 'utf8' });
    t.equal(status, 0, `seed ${seed}: ${stdout}${stderr}`);
    const counts =
      /(\d+) by candidates, (\d+) by all logits, (\d+) for too many, (\d+) logprobs in a round, (\d+) after all/.exec(
        stdout,
      );
    counts?.slice(1).forEach((count, i) => (told[i]! += Number(count)));
  }
  t.ok(
    told.every((count) => count > 3),
    `rows by candidates, by all logits, for too many, logprobs in a round: ${told.join(', ')}`,
  );
});
