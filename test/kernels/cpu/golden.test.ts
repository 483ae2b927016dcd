// The demo model, and SmolLM2 where it is present, against the golden tokens and log-probabilities
// that transformers computed in f32.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { stepFlags } from '../../../common/wire/step.ts';
import { blocksFor, loadModel, type ModelOptions } from './harness.ts';

interface GoldenRow {
  readonly prompt_ids: number[];
  readonly greedy_ids: number[];
  readonly gaps: number[];
  readonly greedy_logprobs: number[];
}

const models = [
  { folder: 'models/demo', golden: 'test/fixtures/demo/golden.json' },
  ...(process.env['VLLM_TS_TEST_MODELS'] === undefined
    ? []
    : [join(process.env['VLLM_TS_TEST_MODELS'], 'smollm2-135m-instruct')]
  ).map((folder) => ({ folder, golden: join(folder, 'golden-f32-of-bf16.json') })),
];

/** Tokens may differ only where the gap to the second best is below this. */
const nearTie = 0.02;

async function checkRow(t: Test, folder: string, row: GoldenRow, options: ModelOptions) {
  const model = await loadModel(folder, options);
  t.teardown(() => model.close());
  const { prompt_ids: prompt, greedy_ids: wanted, gaps, greedy_logprobs: logprobs } = row;
  const count = wanted.length;
  const sample = stepFlags.sample;
  let result = await model.step(
    [
      {
        row: 3,
        tokens: prompt,
        params: { temperature: 0, logprobs: 0 },
        blocks: blocksFor(prompt.length + count),
      },
    ],
    [{ row: 3, start: 0, count: prompt.length, flags: sample }],
  );
  for (let i = 0; i < count; i++) {
    const id = result.columns.tokenId[0]!;
    if (id !== wanted[i]) {
      t.ok(gaps[i]! < nearTie, `token ${i} is ${id}, not ${wanted[i]!}, at a gap of ${gaps[i]!}`);
      return;
    }
    const error = Math.abs(result.columns.logprob[0]! - logprobs[i]!);
    if (error > 0.001) t.fail(`logprob of token ${i} is off by ${error}`);
    if (i + 1 < count)
      result = await model.step(
        [],
        [{ row: 3, start: prompt.length + i, count: 1, flags: sample }],
      );
  }
  t.pass(`${count} tokens`);
}

for (const { folder, golden } of models) {
  t.test(`greedy tokens and logprobs of ${folder}`, { timeout: 600_000 }, async (t) => {
    if (!existsSync(folder)) t.fail(`${folder} is missing`);
    const { rows } = JSON.parse(readFileSync(golden, 'utf8')) as { rows: GoldenRow[] };
    for (const row of rows.slice(0, folder === 'models/demo' ? 8 : 2))
      await checkRow(t, folder, row, {});
    if (folder === 'models/demo')
      for (const variant of ['portable', 'avx2'] as const)
        await checkRow(t, folder, rows[0]!, { variant });
  });
}

t.test('the demo model with weights in f32 and f16, converted as they are packed', async (t) => {
  const { rows } = JSON.parse(readFileSync(models[0]!.golden, 'utf8')) as { rows: GoldenRow[] };
  for (const variant of ['', 'portable'] as const)
    for (const weightDtype of ['f32', 'f16'] as const)
      await checkRow(t, 'models/demo', rows[1]!, { weightDtype, variant });
});
