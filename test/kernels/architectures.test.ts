// Each supported architecture against transformers, by tiny random models: config, checkpoint
// names, sharded files, biases, head norms and rope scaling, through program and backend.
import t from 'tap';
import { readFileSync } from 'node:fs';
import { CpuBackend } from '../../kernels/cpu-backend.ts';
import { ReferenceBackend } from '../../kernels/reference/reference-backend.ts';
import { loadFolder } from './demo-backend.ts';
import type { GoldenRow } from './golden.ts';
import { StepDriver } from './step-driver.ts';

const backends = { reference: () => new ReferenceBackend(), cpu: () => new CpuBackend() };
const cases = ['llama3-sharded', 'mistral', 'mistral-window', 'qwen3'].flatMap((name) =>
  Object.entries(backends).map(([backend, create]) => ({ name, backend, create })),
);

for (const { name, backend: device, create } of cases) {
  t.test(`${name} on ${device}: the tokens and logprobs of transformers`, async (t) => {
    const folder = `test/fixtures/models/${name}`;
    const golden = JSON.parse(readFileSync(`${folder}/golden.json`, 'utf8')) as GoldenRow;
    const backend = create();
    t.teardown(() => backend.close());
    await loadFolder(backend, folder, { maxModelLen: 128 });
    const driver = new StepDriver(backend, 16, 256);
    const row = driver.add(0, golden.prompt_ids, { logprobs: 0 });
    const logprobs: number[] = [];
    while (logprobs.length < golden.greedy_ids.length) {
      const { columns } = await driver.run([{ row, count: row.tokens.length - row.numComputed }]);
      logprobs.push(columns.logprob[0]!);
    }
    t.strictSame(row.tokens.slice(golden.prompt_ids.length), golden.greedy_ids);
    const errors = logprobs.map((x, i) => Math.abs(x - golden.greedy_logprobs[i]!));
    t.ok(Math.max(...errors) < 1e-4, `worst error ${Math.max(...errors)}`);
  });
}
