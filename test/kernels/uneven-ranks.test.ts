// Ranks that do not divide a model evenly: KV heads that they share in part, an intermediate size and
// a vocabulary that end on some rank. Against one rank, logits stay within the tolerance and greedy
// tokens are the same up to the first near tie.
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { ModelConfig } from '../../common/config.ts';
import { readModelConfig } from '../../common/model-config.ts';
import { compareGreedy, nearTie, type GoldenRow } from './golden.ts';
import { loadRanks, type RankOptions } from './rank-group.ts';
import { StepDriver } from './step-driver.ts';

t.setTimeout(600_000);

const tolerance = 1e-3;

async function start(t: Test, folder: string, numRanks: number, options: RankOptions) {
  const limits = { maxModelLen: 128, numBlocks: 64, maxNumTokens: 64, maxNumLogits: 16 };
  const { backend } = await loadRanks(folder, numRanks, { ...limits, ...options });
  t.teardown(() => backend.close());
  return new StepDriver(backend, 16, 64);
}

/** Prompt logprobs, and greedy tokens with the gap to the second best at each. */
async function play(driver: StepDriver, prompt: readonly number[], count: number) {
  const row = driver.add(0, prompt, { promptLogprobs: 5, logprobs: 2 });
  const logprobs: number[] = [];
  const gaps: number[] = [];
  while (row.tokens.length < prompt.length + count) {
    const { columns } = await driver.run([{ row, count: row.tokens.length - row.numComputed }]);
    logprobs.push(...columns.promptLogprob, ...columns.promptTopLogprobs);
    gaps.push(columns.topLogprobs[0]! - columns.topLogprobs[1]!);
  }
  return { logprobs, gaps, ids: row.tokens.slice(prompt.length) };
}

const shape: ModelConfig = {
  ...readModelConfig('models/demo'),
  architecture: 'Qwen3ForCausalLM',
  numLayers: 2,
  hiddenSize: 64,
  numHeads: 12,
  numKvHeads: 4,
  headDim: 16,
  intermediateSize: 72,
  vocabSize: 3077,
  tieWordEmbeddings: false,
};
const prompt = Array.from({ length: 40 }, (_, i) => (i * i * 131 + 7 * i + 3071) % 3077);

for (const device of ['reference', 'cpu'] as const)
  t.test(`12 heads over 4 KV heads, 72 columns and 3,077 ids on ${device}`, async (t) => {
    const options = { device, madeUp: shape };
    const one = await play(await start(t, 'models/demo', 1, options), prompt, 12);
    const likeOne = { greedy_ids: one.ids, gaps: one.gaps } as unknown as GoldenRow;
    t.ok(one.gaps.filter((gap) => gap > nearTie).length > 6, 'most gaps are none');
    for (const numRanks of [2, 3, 4, 6]) {
      const many = await play(await start(t, 'models/demo', numRanks, options), prompt, 12);
      const error = Math.max(...one.logprobs.map((x, i) => Math.abs(x - many.logprobs[i]!)));
      t.equal(many.logprobs.length, one.logprobs.length);
      t.ok(error < tolerance, `${numRanks} ranks are off by ${error}`);
      const { numEqual, isExcused } = compareGreedy(likeOne, many.ids);
      t.ok(isExcused, `${numRanks} ranks: ${numEqual} tokens`);
    }
  });

t.test('a checkpoint of 6 heads over 2 KV heads, biases, and 80 columns', async (t) => {
  const folder = 'test/fixtures/models/llama3-sharded';
  const golden = JSON.parse(readFileSync(`${folder}/golden.json`, 'utf8')) as GoldenRow;
  for (const device of ['reference', 'cpu'] as const)
    for (const numRanks of [2, 3, 6]) {
      const driver = await start(t, folder, numRanks, { device });
      const { ids } = await play(driver, golden.prompt_ids, golden.greedy_ids.length);
      const { numEqual, isExcused } = compareGreedy(golden, ids);
      t.ok(isExcused, `${numRanks} ranks on ${device}: ${numEqual} tokens`);
    }
});
