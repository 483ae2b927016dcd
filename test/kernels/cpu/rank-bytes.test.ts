// What ranks show each other in a step, counted in bytes (docs/tensor-parallel.md).
import t, { type Test } from 'tap';
import type { CpuBackend } from '../../../kernels/cpu-backend.ts';
import type { Op } from '../../../kernels/program.ts';
import { demoFolder } from '../demo-backend.ts';
import { readGolden } from '../golden.ts';
import { loadRanks } from '../rank-group.ts';
import { StepDriver, type TestSampling } from '../step-driver.ts';

t.setTimeout(600_000);
const prompt = readGolden('test/fixtures/demo/golden.json')[0]!.prompt_ids;

/** Bytes that a rank shows each other one in a step of one row: sums, then the row of logits. */
async function bytesOfStep(t: Test, numRanks: number, sampling: TestSampling): Promise<number> {
  const { backend, programs } = await loadRanks(demoFolder, numRanks);
  t.teardown(() => backend.close());
  const driver = new StepDriver(backend, 16, 256);
  const row = driver.add(0, prompt, sampling);
  await driver.run([{ row, count: prompt.length }]);
  const rank = backend.ranks[1] as CpuBackend;
  const before = rank.shownBytes();
  await driver.run([{ row, count: 1 }]);
  const { ops, buffers } = programs[1]!;
  const sums = ops.filter(({ op }) => op.startsWith('allReduce'));
  const width = (sum: Op) => buffers[(sum.args['x'] as { buffer: number }).buffer]!.columns;
  return sums.reduce((left, sum) => left - 4 * width(sum), rank.shownBytes() - before);
}

t.test('ranks tell each other no more than the parameters ask for', async (t) => {
  const vocabSize = 8192;
  for (const numRanks of [2, 4]) {
    const bytes = (sampling: TestSampling) => bytesOfStep(t, numRanks, sampling);
    const part = vocabSize / numRanks;
    const [head, candidate, few, likeliest] = [8, 12, 64, 129];
    t.equal(await bytes({ temperature: 0 }), head + candidate);
    t.equal(await bytes({ temperature: 1, frequencyPenalty: 1 }), head + candidate);
    t.equal(await bytes({ temperature: 1, topK: 64, topP: 0.9 }), head + few * candidate);
    t.equal(await bytes({ temperature: 1, minP: 0.9 }), head + few * candidate);
    t.equal(await bytes({ temperature: 1, topP: 0.9 }), head + likeliest * candidate);
    t.equal(await bytes({ temperature: 1, topK: 65, topP: 0.9 }), 4 * part);
    const judged = 8 + 8 * (part / 1024) + 8 * 5;
    t.equal(await bytes({ temperature: 0, logprobs: 5 }), head + candidate + judged);
    // More ids are left than are worth naming, or named: their logits, after all.
    const all = head + likeliest * candidate + 4 * part;
    t.equal(await bytes({ temperature: 5, topP: 0.999 }), all);
    t.equal(await bytes({ temperature: 5, minP: 1e-4 }), head + few * candidate + 4 * part);
  }
});
