// A request's logits have the same bits alone, in any batch, in any chunking, on any number of
// threads, after preemption and with a prefix that another request computed.
import t from 'tap';
import { stepFlags } from '../../../common/wire/step.ts';
import type { StepResult } from '../../../kernels/backend.ts';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import { blocksFor, type Harness, loadModel, type ModelOptions, type NewRow } from './harness.ts';

const folder = 'models/demo';
const { sample } = stepFlags;
const maxNumLogits = 40;

/** Prompts of different lengths; the first is the one that is watched. */
function promptOf(i: number): number[] {
  return Array.from({ length: 45 + ((i * 13) % 40) }, (_, j) => (j * 31 + i * 977 + 5) % 8192);
}

function newRow(row: number, prompt: number, firstBlock = 1 + row * 8): NewRow {
  const tokens = promptOf(prompt);
  const params = { temperature: 0.9, seed: 77 + prompt, topP: 0.95, logprobs: 5 };
  return { row, tokens, params, blocks: blocksFor(128, firstBlock) };
}

/** What of a step's result must not change: id, logprobs, and the watched row's logits. */
function fingerprint(model: Harness, result: StepResult, index: number): string {
  const { columns, numTop } = result;
  const r = columns.logprobIndex.indexOf(index);
  const top = columns.topLogprobs.slice(r * numTop, (r + 1) * numTop);
  const logits = new Float32Array(model.backend.readBuffer(model.logitsBuffer));
  const row = logits.slice(r * 8192, (r + 1) * 8192);
  return [
    columns.tokenId[index],
    columns.logprob[r],
    columns.logprobRank[r],
    top.join(' '),
    Buffer.from(row.buffer).toString('base64'),
  ].join('|');
}

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

/** Prefill in chunks, then three decode steps, of `count` rows; row `watched` is fingerprinted. */
function generate(count: number, watched: number, chunk: number, numGenerated = 3) {
  return async (model: Harness): Promise<string[]> => {
    // Row `watched` runs prompt 0; the others run prompts of their own.
    const prompts = Array.from({ length: count }, (_, i) => (i === watched ? 0 : i + 1));
    const rows = prompts.map((prompt, row) => newRow(row, prompt));
    const prints: string[] = [];
    const computed = rows.map(() => 0);
    const known = rows.map((row) => row.tokens.length);
    for (let first = true; prints.length <= numGenerated; first = false) {
      const scheduled = rows.map(({ row }) => {
        const n = Math.min(chunk, known[row]! - computed[row]!);
        const flags = computed[row]! + n === known[row] ? sample : 0;
        return { row, start: computed[row]!, count: n, flags };
      });
      const result = await model.step(first ? rows : [], scheduled);
      for (const { row, count: n, flags } of scheduled) {
        computed[row]! += n;
        if (flags === sample) known[row]!++;
      }
      if (scheduled[watched]!.flags === sample) prints.push(fingerprint(model, result, watched));
    }
    return prints;
  };
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
