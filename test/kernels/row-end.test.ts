// docs/sampling.md, section 8, on every backend that runs here: which rows are at their end, and
// that steps which still name one do nothing for it.
import t, { type Test } from 'tap';
import type { Backend } from '../../kernels/backend.ts';
import { CpuBackend } from '../../kernels/cpu-backend.ts';
import { ReferenceBackend } from '../../kernels/reference/reference-backend.ts';
import { demoFolder, loadFolder } from './demo-backend.ts';
import { readGolden } from './golden.ts';
import { StepDriver, type TestRow, type TestSampling } from './step-driver.ts';

t.setTimeout(300_000);

const [golden] = readGolden('test/fixtures/demo/golden.json');
const prompt = golden!.prompt_ids;
const [first = 0, second = 0, third = 0] = golden!.greedy_ids;
const numBlocks = 64;

const backends: Readonly<Record<string, () => Backend>> = {
  reference: () => new ReferenceBackend(),
  cpu: () => new CpuBackend(),
};

/** Steps for one row as the engine sends them ahead: each with the token that it expects. */
async function tokensOf(d: StepDriver, row: TestRow, num: number): Promise<number[]> {
  const ids: number[] = [];
  for (let i = 0; i < num; i++) {
    const { columns } = await d.run([{ row, count: row.tokens.length - row.numComputed }]);
    const id = columns.tokenId[0]!;
    ids.push(id);
    if (id < 0) row.tokens.push(0);
    if (columns.rowFlags[0] !== 0) throw new Error('it is flagged');
  }
  return ids;
}

const cases: readonly (readonly [what: string, sampling: TestSampling, expected: number[]])[] = [
  ['no end', {}, [first, second, third]],
  ['a stop id', { stopIds: [9, second] }, [first, second, -1]],
  ['a stop id at min_tokens', { stopIds: [second], minTokens: 1 }, [first, second, -1]],
  ['its length', { maxNumTokens: prompt.length + 2 }, [first, second, -1]],
  ['its length at once', { maxNumTokens: prompt.length + 1 }, [first, -1, -1]],
];

for (const [name, make] of Object.entries(backends))
  t.test(`${name}: rows at their end`, async (t: Test) => {
    const backend = make();
    t.teardown(() => backend.close());
    await loadFolder(backend, demoFolder, { numBlocks });
    const d = new StepDriver(backend, 16, numBlocks);
    for (const [what, sampling, expected] of cases) {
      const row = d.add(0, prompt, sampling);
      t.same(await tokensOf(d, row, 3), expected, what);
      d.preempt(row);
    }
    const again = d.add(0, prompt);
    t.same(await tokensOf(d, again, 2), [first, second], 'a row that is filled anew runs');
    d.preempt(again);

    const ended = d.add(0, prompt, { stopIds: [first] });
    const other = d.add(1, prompt);
    const both = () =>
      [ended, other].map((row) => ({ row, count: row.tokens.length - row.numComputed }));
    for (const expected of [first, second, third]) {
      const { columns } = await d.run(both());
      t.equal(columns.tokenId[1], expected, 'its neighbour goes on');
      if (expected !== first) t.equal(columns.tokenId[0], -1);
      if (columns.tokenId[0] === -1) ended.tokens.push(0);
    }
  });
