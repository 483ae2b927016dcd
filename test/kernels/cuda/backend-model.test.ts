// The demo model on the cuda backend, on a GPU: against transformers and the reference, and the same
// bits whatever the batch, the chunking, graphs or fusion. Skipped where there is none.
import t from 'tap';
import { stepFlags } from '../../../common/wire/step.ts';
import { ReferenceBackend } from '../../../kernels/reference/reference-backend.ts';
import { generate } from '../cpu/generate.ts';
import { blocksFor } from '../cpu/harness.ts';
import { demoFolder, loadFolder } from '../demo-backend.ts';
import { readGolden } from '../golden.ts';
import { StepDriver } from '../step-driver.ts';
import { loadDemo, noGpu, type CudaOptions } from './gpu.ts';

t.setTimeout(600_000);
const { sample, promptLogprobs } = stepFlags;
const golden = readGolden('test/fixtures/demo/golden.json');
/** bf16 against f32: below this gap the two may choose differently. */
const nearTie = 0.1;

t.test('greedy tokens are those of transformers', { skip: noGpu }, async (t) => {
  const model = await loadDemo();
  t.teardown(() => model.close());
  for (const { prompt_ids: prompt, greedy_ids: wanted, gaps } of golden.slice(0, 4)) {
    const count = wanted.length;
    const row = {
      row: 3,
      tokens: prompt,
      params: { temperature: 0 },
      blocks: blocksFor(prompt.length + count),
    };
    const first = await model.step(
      [row],
      [{ row: 3, start: 0, count: prompt.length, flags: sample }],
    );
    const ids = [first.columns.tokenId[0]!];
    ids.push(...(await model.decode(3, prompt.length + 1, count - 1)));
    const differs = wanted.findIndex((id, i) => ids[i] !== id);
    t.ok(differs < 0 || gaps[differs]! < nearTie, `differs at ${differs}, gap ${gaps[differs]!}`);
  }
});

t.test(
  'prompt logprobs are the reference’s, in chunks and in slices',
  { skip: noGpu },
  async (t) => {
    const prompt = golden[0]!.prompt_ids;
    const reference = new ReferenceBackend();
    await loadFolder(reference, demoFolder, { actDtype: 'bf16', kvDtype: 'bf16' });
    const driver = new StepDriver(reference, 16, 256);
    const row = driver.add(0, prompt, { promptLogprobs: 3 });
    const wanted = (await driver.run([{ row, count: prompt.length }])).columns.promptLogprob;
    await reference.close();

    const run = async (chunk: number, maxNumLogits: number) => {
      const model = await loadDemo({ maxNumLogits });
      const rows = [
        {
          row: 2,
          tokens: prompt,
          params: { promptLogprobs: 3, logprobs: 1 },
          blocks: blocksFor(96),
        },
      ];
      const seen: number[] = [];
      for (let start = 0; start < prompt.length; start += chunk) {
        const count = Math.min(chunk, prompt.length - start);
        const flags = promptLogprobs | (start + count === prompt.length ? sample : 0);
        const { columns } = await model.step(start === 0 ? rows : [], [
          { row: 2, start, count, flags },
        ]);
        seen.push(...columns.promptLogprob, ...columns.promptTopIds, ...columns.logprob);
      }
      await model.close();
      return seen;
    };
    const whole = await run(1000, 64);
    const errors = [...wanted].map((x, i) => Math.abs(x - whole[i]!));
    t.ok(Math.max(...errors) < 0.1, `the largest error is ${Math.max(...errors)}`);
    const sorted = (values: number[]) => values.sort((a, b) => a - b);
    const all = sorted(whole);
    t.same(sorted(await run(1000, 4)), all, 'four rows of logits at a time');
    t.same(sorted(await run(7, 64)), all, 'in chunks of 7');
  },
);

async function prints(
  way: ReturnType<typeof generate>,
  options: CudaOptions = {},
): Promise<string[]> {
  const model = await loadDemo({
    maxNumTokens: 4096,
    maxNumLogits: 40,
    ...options,
    load: { numBlocks: 400, ...options.load },
  });
  try {
    return await way(model);
  } finally {
    await model.close();
  }
}

t.test('logits keep their bits', { skip: noGpu }, async (t) => {
  const plain = { logprobs: null };
  const alone = await prints(generate(1, 0, 1000, plain));
  t.equal(new Set(alone).size, 4, 'the four steps differ from each other');
  const eagerly = { load: { debugSync: true } };
  const ways: [string, ReturnType<typeof generate>, CudaOptions?][] = [
    ['again', generate(1, 0, 1000, plain)],
    ['op by op', generate(1, 0, 1000, plain), eagerly],
    ['op by op in a batch of 33', generate(33, 5, 1000, plain), eagerly],
    ['chunked at 7', generate(1, 0, 7, plain)],
    ['chunked at 1', generate(1, 0, 1, plain)],
    ['chunked at 7 in a batch of 9', generate(9, 4, 7, plain)],
    ['with few logit rows at once', generate(3, 2, 30, plain), { maxNumLogits: 4 }],
    ['with gate and up of 16 rows at once', generate(9, 4, 1000, plain), { gateUpRows: 16 }],
  ];
  for (const count of [2, 7, 8, 9, 16, 17, 32, 33, 40])
    ways.push([`in a batch of ${count}`, generate(count, count - 1, 1000, plain)]);
  for (const [name, way, options] of ways) t.same(await prints(way, options), alone, name);
  const eager = await prints(generate(1, 0, 1000));
  const beside = await prints(generate(12, 6, 1000));
  t.same(beside, eager, 'with logprobs in a batch of 12');
  const part = (print: string, i: number) => print.split('|').at(i);
  t.same(
    eager.map((print) => [part(print, 0), part(print, -1)]),
    alone.map((print) => [part(print, 0), part(print, -1)]),
    'with logprobs or without',
  );
});
