// sample of kernels/cuda without a GPU: its sources over emulation/, in orders drawn from seeds. Rows
// of a batch, some drawn as their logits stream by, have the answers that each has alone, bit for bit.
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { emulate } from './emulate.ts';

const skip = process.platform === 'linux' ? false : 'CUDA is for Linux';

t.test('rows sampled in a batch, over fibers', { skip }, async (t) => {
  t.setTimeout(600_000);
  const program = await emulate(t, 'run_rows.cc', ['sample.cu']);
  let streamed = 0;
  let told = 0;
  let lost = 0;
  for (let seed = 1; seed <= 24; seed++) {
    const { stdout, stderr, status } = spawnSync(program, [String(seed)], { encoding: 'utf8' });
    t.equal(status, 0, `seed ${seed}: ${stdout}${stderr}`);
    streamed += Number(/(\d+) streamed/.exec(stdout)?.[1]);
    told += Number(/(\d+) told/.exec(stdout)?.[1]);
    lost += Number(/(\d+) lost/.exec(stdout)?.[1]);
  }
  t.ok(streamed > 40, `${streamed} rows drawn as they stream by`);
  t.ok(told > 20, `${told} rows by their best ids`);
  t.ok(lost > 20, `${lost} rows whose temperature leaves nothing above -Infinity`);
});
