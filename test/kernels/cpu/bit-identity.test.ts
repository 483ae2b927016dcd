// A request's logits have the same bits alone, in any batch, in any chunking, on any number of
// threads, after preemption and with a prefix that another request computed.
import t from 'tap';
import { stepFlags } from '../../../common/wire/step.ts';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import { fingerprint, generate, newRow } from './generate.ts';
import { blocksFor, type Harness, loadModel, type ModelOptions } from './harness.ts';

const folder = 'models/demo';
const { sample } = stepFlags;
const maxNumLogits = 40;

async function run(
  options: ModelOptions,
  steps: (model: Harness) => Promise<string[]>,
): Promise<string[]> {
  const model = await loadModel(folder, {
    maxNumLogits,
    ...options,
    load: { numBlocks: 400, ...options.load },
  });
  try {
    return await steps(model);
  } finally {
    await model.close();
  }
}

for (const variant of ['', 'portable'] as const satisfies CpuVariant[]) {
  const name = variant || 'best';
  t.test(`logits keep their bits (${name})`, { timeout: 600_000 }, async (t) => {
    const options: ModelOptions = { variant, maxNumTokens: 4096 };
    const alone = await run(options, generate(1, 0, 1000));
    t.equal(new Set(alone).size, 4, 'the four steps differ from each other');
    const ways: [string, () => Promise<string[]>][] = [
      ['in a batch of 2', () => run(options, generate(2, 1, 1000))],
      ['in a batch of 7', () => run(options, generate(7, 3, 1000))],
      ['in a batch of 8', () => run(options, generate(8, 7, 1000))],
      ['in a batch of 9', () => run(options, generate(9, 0, 1000))],
      ['in a batch of 32', () => run(options, generate(32, 17, 1000))],
      ['in a batch of 33', () => run(options, generate(33, 32, 1000))],
      ['chunked at 7', () => run(options, generate(1, 0, 7))],
      ['chunked at 1', () => run(options, generate(1, 0, 1))],
      ['chunked at 7 in a batch of 9', () => run(options, generate(9, 4, 7))],
      ['on 1 thread', () => run({ ...options, load: { numThreads: 1 } }, generate(5, 2, 16))],
      ['on 3 threads', () => run({ ...options, load: { numThreads: 3 } }, generate(5, 2, 16))],
      [
        'with few logit rows at once',
        () => run({ ...options, maxNumLogits: 4 }, generate(3, 2, 30)),
      ],
    ];
    if (variant === 'portable')
      ways.splice(0, ways.length, ...ways.slice(3, 4), ...ways.slice(8, 9));
    for (const [way, prints] of ways) t.same(await prints(), alone, way);
  });
}

for (const kvDtype of ['f32', 'bf16'] as const)
  t.test(`past attention's chunk of 256 positions, KV ${kvDtype}`, async (t) => {
    // The watched prompt ends at 255 tokens: the three steps after it cross the border.
    const more = { longer: 210 };
    const options: ModelOptions = { kvDtype, maxNumTokens: 2048 };
    const alone = await run(options, generate(1, 0, 1000, more));
    for (const [count, watched, chunk] of [
      [5, 3, 1000],
      [1, 0, 7],
      [2, 1, 64],
      [3, 0, 129],
    ] as const)
      t.same(
        await run(options, generate(count, watched, chunk, more)),
        alone,
        `${count} rows, chunks of ${chunk}`,
      );
    const other = { ...options, load: { numThreads: 5 } };
    t.same(await run(other, generate(2, 0, 100, more)), alone, 'on 5 threads');
  });

t.test('a preempted row and one with a prefix hit keep their bits', async (t) => {
  const alone = await run({}, generate(1, 0, 1000));
  const resumed = await run({}, async (model) => {
    const row = newRow(0, 0);
    const prompt = row.tokens.length;
    let result = await model.step([row], [{ row: 0, start: 0, count: prompt, flags: sample }]);
    const first = result.columns.tokenId[0]!;
    result = await model.step([], [{ row: 0, start: prompt, count: 1, flags: sample }]);
    const second = result.columns.tokenId[0]!;
    // Preempted: it comes back in another row with other blocks and all its tokens; the first 32
    // tokens hit the blocks that the old row computed.
    const tokens = [...row.tokens, first, second];
    const blocks = [...row.blocks.slice(0, 2), ...blocksFor(96, 100)];
    const again = { ...row, row: 5, tokens, numPromptTokens: prompt, blocks };
    result = await model.step(
      [again],
      [{ row: 5, start: 32, count: tokens.length - 32, flags: sample }],
    );
    return [fingerprint(model, result, 0)];
  });
  t.same(resumed, [alone[2]]);
});
