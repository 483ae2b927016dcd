// sampleSharded of kernels/cuda without a GPU: its sources over emulation/, in orders drawn from
// seeds. Rows of every kind on 2, 3, 4 and 8 ranks have the answers, bit for bit, that the sampler of
// one GPU has with all logits, whether ranks told a best id, all candidates or the likeliest, or
// gathered all logits, and told logprobs in a second round or not; by stores to each other's memory,
// or by a library that carries between two launches, and then with a search for thresholds. Greedy rows
// are told by best ids from each rank's head, too.
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
    'sample_sharded_rows.cu',
    'sample_sharded_search.cu',
    'group.cu',
  ];
  const program = await emulate(t, 'run_samples.cc', kernels);
  const run = (seeds: readonly number[], ...more: string[]): number[] => {
    const told = [0, 0, 0, 0, 0, 0, 0, 0];
    for (const seed of seeds) {
      const args = [String(seed), ...more];
      const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8' });
      t.equal(status, 0, `${args.join(' ')}: ${stdout}${stderr}`);
      const counts =
        /complete: (\d+), (\d+) gathered; likeliest: (\d+), (\d+) gathered; others gathered: (\d+), logprobs in a round: (\d+); by the head: (\d+); by best ids: (\d+)/.exec(
          stdout,
        );
      counts?.slice(1).forEach((count, i) => (told[i]! += Number(count)));
    }
    return told;
  };
  // From 200 on many ids have the k-th greatest logit.
  const told = run([1, 2, 3, 5, 11, 19, 26, 101, 106, 109, 118, 130, 218]);
  t.ok(
    told.slice(0, 6).every((count) => count > 1),
    `rows by complete lists, by the likeliest, and gathered; logprobs in a round: ${told.join(', ')}`,
  );
  const carried = run([1, 2, 26, 206, 218], 'carried');
  carried.splice(2, 1);
  t.ok(
    carried.slice(0, 5).every((count) => count > 0),
    `carried: by complete lists, and searched; logprobs in a round: ${carried.join(', ')}`,
  );
  // From 300 on most rows are searched: ties, dense floats, infinite z, all that parameters can ask.
  const searched = run([300, 301, 302, 307, 309, 324, 328], 'carried');
  t.ok(searched[1]! + searched[3]! + searched[4]! > 20, `searched: ${searched.join(', ')}`);
  run([301, 313]);
  for (const more of [[], ['carried']]) {
    const found = run([1, 2, 3, 4, 5, 11, 18, 206, 302], ...more, 'best');
    const [byHead, byBestIds] = [found[6]!, found[7]!];
    t.ok(byHead > 12 && byBestIds > 2 && found[5]! > 0, `best ids of heads: ${found.join(', ')}`);
  }
});
