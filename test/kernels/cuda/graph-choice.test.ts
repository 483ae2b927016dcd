// Which CUDA graphs there are and which of them serves a step, by the host's own code: no GPU takes
// part. That a graph computes what its ops compute one by one is held by tests on a GPU.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { findCxx } from './cxx.ts';

const sources = [
  'test/kernels/cuda/graph_choice_run.cc',
  'kernels/cuda/host/graph_choice.cc',
  ...['row_table', 'batch', 'step_view'].map((name) => `kernels/host/${name}.cc`),
];

async function build(t: Test): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'vt-graphs-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'run');
  (await findCxx()).compile(['-std=c++17', '-O1', `-I${packageRoot}`, ...sources, '-o', program]);
  return program;
}

const program = build(t);

/** One GPU, whose head finds best ids of 65 to 256 rows; two that share memory; two over NCCL. */
const alone = ['max_rows=256', 'max_logprobs=64', 'best=65-256'];
const peers = [...alone, 'tells_rows=1'];
const carried = [...peers, 'needs_kinds=1'];

/** The lines that it printed, buckets first. */
async function linesOf(options: readonly string[], steps: readonly string[]): Promise<string[]> {
  const run = spawnSync(await program, [...options], {
    encoding: 'utf8',
    input: steps.map((step) => `${step}\n`).join(''),
  });
  if (run.status !== 0) throw new Error(`${run.signal ?? run.status}: ${run.stderr}`);
  return run.stdout
    .trimEnd()
    .split('\n')
    .map((line) => line.trimEnd());
}

/** `wanted`: steps, and the graphs that serve them. */
async function check(
  t: Test,
  options: readonly string[],
  wanted: Readonly<Record<string, string>>,
): Promise<void> {
  const steps = Object.keys(wanted);
  const [, ...found] = await linesOf(options, steps);
  t.same(Object.fromEntries(steps.map((step, i) => [step, found[i]])), wanted, options.join(' '));
}

const upTo = (most: number, step: number, from = step): number[] =>
  Array.from({ length: Math.floor((most - from) / step) + 1 }, (_, i) => from + i * step);

t.test('buckets, the last of which is the most rows of a step', async (t) => {
  const all = [1, 2, 4, ...upTo(256, 8), ...upTo(512, 16, 272), ...upTo(1024, 32, 544)];
  for (const most of [
    1, 2, 3, 4, 5, 8, 9, 250, 256, 257, 272, 500, 512, 513, 544, 545, 1000, 1024,
  ]) {
    const [buckets] = await linesOf([`max_rows=${most}`], []);
    t.same(buckets!.split(' ').map(Number), [...all.filter((b) => b < most), most]);
  }
});

t.test('a step is served by the smallest bucket that holds it', async (t) => {
  const most = 600;
  const buckets = [1, 2, 4, ...upTo(256, 8), ...upTo(512, 16, 272), 544, 576, 600];
  const rows = Array.from({ length: most }, (_, i) => i + 1);
  const graphs = rows.map((n) => `all ${buckets.find((bucket) => bucket >= n)}`);
  const [, ...found] = await linesOf(
    [`max_rows=${most}`],
    rows.map((n) => `${n} temperature=0.6`),
  );
  t.same(found, graphs);
  await check(t, ['max_rows=8'], { '9 temperature=0.6': 'op by op' });
});

t.test('a quarter of greedy rows: their logits are not written', async (t) => {
  const rows = (numGreedy: number, total: number) =>
    `${numGreedy}, ${total - numGreedy} temperature=0.6`;
  await check(t, alone, {
    '64': 'all 64',
    '65': 'few_logits 72',
    '256': 'few_logits 256',
    [rows(50, 200)]: 'few_logits 200',
    [rows(49, 200)]: 'all 200',
    [rows(51, 201)]: 'few_logits 208',
    [rows(50, 201)]: 'all 208',
    '200 temperature=0.6': 'all 200',
  });
  await check(t, ['max_rows=512', 'best=65-256'], { '256': 'few_logits 256', '257': 'all 272' });
  await check(t, ['max_rows=256'], { '256': 'all 256' });
});

t.test('rows that are not told by their greatest logit', async (t) => {
  const others = [
    ...['temperature=0.00001', 'logprobs=0', 'logprobs=5', 'repetition=1.1', 'frequency=0.1'],
    ...['presence=0.1', 'bias=1', 'allowed=1', 'bad=1', 'min_tokens=1 stops=1'],
  ];
  await check(t, alone, Object.fromEntries(others.map((words) => [`100 ${words}`, 'all 104'])));
  const greedy = ['temperature=0.000005', 'min_tokens=1', 'stops=1', 'top_k=5 top_p=0.5'];
  await check(
    t,
    alone,
    Object.fromEntries(greedy.map((words) => [`100 ${words}`, 'few_logits 104'])),
  );
});

t.test('logprobs: as many as a graph lists, or op by op', async (t) => {
  await check(t, alone, {
    '3 logprobs=0': 'all 4',
    '3 logprobs=32': 'all 4',
    '3, 1 logprobs=33': 'op by op',
    '3 logprobs=64': 'op by op',
    '3 logprobs=64 named=128': 'all 4',
    '75, 25 logprobs=3': 'few_logits 104',
  });
  await check(t, ['max_rows=8', 'max_logprobs=20'], {
    '3 logprobs=20': 'all 4',
    '3 logprobs=21': 'op by op',
  });
});

t.test('steps that are not one token a row, each of which samples', async (t) => {
  await check(t, alone, {
    '200, 1 count=2': 'op by op',
    '1 count=100': 'op by op',
    '200, 1 waits': 'op by op',
    '1 waits': 'op by op',
    '': 'op by op',
    // A row that judges a prompt token instead of sampling.
    '4, 1 waits prompt_logprobs=0': 'op by op',
    '100 groups=1': 'few_logits 104',
    '100 groups=0': 'few_logits 104',
    '100 groups=2': 'op by op',
  });
});

t.test('--enforce-eager and --debug-sync: every step op by op', async (t) => {
  const steps = { '1': 'op by op', '100': 'op by op', '8 logprobs=1': 'op by op' };
  for (const options of [alone, peers, carried]) await check(t, [...options, 'op_by_op=1'], steps);
});

t.test('ranks: logprobs have graphs of their own', async (t) => {
  await check(t, peers, {
    '8': 'no_alternatives 8',
    '8 temperature=0.6': 'no_alternatives 8',
    '8 logprobs=0': 'all 8',
    '7, 1 logprobs=2': 'all 8',
    // What is told of rows is the device's choice there, for all that no logprobs are asked of.
    '8 temperature=0.6 top_k=5': 'all 8',
    '8 temperature=0.6 top_p=0.9': 'all 8',
    '100': 'few_logits 104',
    '25, 75 temperature=0.6': 'few_logits 104',
    '24, 76 temperature=0.6': 'no_alternatives 104',
    '99, 1 logprobs=2': 'all 104',
    '99, 1 temperature=0.6 min_p=0.1': 'all 104',
  });
});

t.test('ranks over NCCL: the longest search for a row of the step', async (t) => {
  const of = (words: string, graph: string) => [`100, 1 temperature=0.6 ${words}`, graph] as const;
  await check(t, carried, {
    '101': 'few_logits 104',
    '101 temperature=0.6': 'no_alternatives 104',
    '101 logprobs=3': 'told 104',
    ...Object.fromEntries([
      of('', 'few_logits 104'),
      of('logprobs=3', 'told 104'),
      of('top_k=1', 'told 104'),
      of('top_k=64 top_p=0.9 min_p=0.1', 'told 104'),
      of('min_p=0.1', 'bounded 104'),
      of('min_p=0.1 logprobs=3', 'bounded 104'),
      of('top_k=65', 'searched 104'),
      of('top_p=0.9', 'searched 104'),
      of('top_p=0.9 min_p=0.1 logprobs=3', 'searched 104'),
      of('top_k=65 top_p=0.9', 'all 128'),
    ]),
    // As good as greedy: nothing is searched.
    '8 top_k=65 top_p=0.9': 'no_alternatives 8',
    '1 temperature=0.6 top_k=65 top_p=0.9': 'all 1',
    '3 temperature=0.6 top_k=65 top_p=0.9': 'all 4',
    '129 temperature=0.6 top_k=65 top_p=0.9': 'all 256',
  });
  const without = ['max_rows=8', 'max_logprobs=0', 'tells_rows=1', 'needs_kinds=1'];
  await check(t, without, { '8 logprobs=0': 'told 8' });
  await check(t, ['max_rows=200', 'tells_rows=1', 'needs_kinds=1'], {
    '128 temperature=0.6 top_k=65 top_p=0.9': 'all 128',
    '129 temperature=0.6 top_k=65 top_p=0.9': 'all 200',
  });
});

t.test('graphs of each kind, and their room', async (t) => {
  const graphs = async (options: readonly string[]) => {
    const [buckets, ...lines] = await linesOf(options, ['graphs']);
    return lines.map((line) => line.replace(`: ${buckets}`, ': every bucket'));
  };
  const best = ` ${upTo(256, 8, 72).join(' ')}`;
  const all = 'all top=32 named=128 candidates=1 steps=8 best=0:';
  t.same(await graphs(alone), [
    `few_logits top=32 named=128 candidates=1 steps=8 best=1:${best}`,
    `${all} every bucket`,
  ]);
  const few = `few_logits top=-1 named=0 candidates=0 steps=0 best=1:${best}`;
  const plain = 'no_alternatives top=-1 named=0 candidates=0 steps=0 best=0: every bucket';
  t.same(await graphs(peers), [few, plain, `${all} every bucket`]);
  t.same(await graphs(carried), [
    few,
    plain,
    'told top=32 named=128 candidates=1 steps=0 best=0: every bucket',
    'bounded top=32 named=128 candidates=1 steps=1 best=0: every bucket',
    'searched top=32 named=128 candidates=1 steps=4 best=0: every bucket',
    `${all} 1 2 4 8 16 32 64 128 256`,
  ]);
  t.match(
    (await graphs(['max_rows=28', 'tells_rows=1', 'needs_kinds=1'])).at(-1),
    /: 1 2 4 8 16 28$/,
  );
});
