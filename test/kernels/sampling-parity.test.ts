// docs/sampling.md is implemented twice: the same requests, with every parameter drawn at random,
// must give the same tokens, ranks and lists on reference and cpu. Logits differ in their last bits
// between the two, so that one request in many may meet a near tie.
import t from 'tap';
import type { StepResult } from '../../kernels/backend.ts';
import { CpuBackend } from '../../kernels/cpu-backend.ts';
import { ReferenceBackend } from '../../kernels/reference/reference-backend.ts';
import { demoFolder, loadFolder } from './demo-backend.ts';
import { readGolden } from './golden.ts';
import { StepDriver, type TestRow, type TestSampling } from './step-driver.ts';

t.setTimeout(300_000);

const numRequests = 20;
const numTokens = 4;
const prompts = readGolden('test/fixtures/demo/golden.json').map((row) => row.prompt_ids);

let state = 2024;
const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
const below = (n: number) => Math.floor(random() * n);
const maybe = <T>(value: () => T, off: T): T => (random() < 0.4 ? value() : off);
const ids = (n: number) => Array.from({ length: n }, () => below(8192));

function randomSampling(): TestSampling {
  return {
    temperature: maybe(() => 0, 0.3 + random() * 1.5),
    topP: maybe(() => 0.3 + random() * 0.69, 1),
    topK: maybe(() => 1 + below(60), 0),
    minP: maybe(() => random() * 0.2, 0),
    presencePenalty: maybe(() => random() * 4 - 2, 0),
    frequencyPenalty: maybe(() => random() * 4 - 2, 0),
    repetitionPenalty: maybe(() => 0.5 + random() * 1.5, 1),
    seed: BigInt(below(2 ** 32)) << BigInt(below(33)),
    minTokens: below(8),
    stopIds: maybe(() => [2, 0, ...ids(2)], []),
    logitBias: maybe(() => ids(20).map((id) => [id, random() * 300 - 150] as const), []),
    allowedIds: maybe(() => ids(500), []),
    badWords: maybe(() => [ids(1), ids(2), [466, 317]], []),
    logprobs: below(6),
  };
}

interface Answer {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
  readonly ranks: readonly number[];
  readonly topIds: readonly number[];
}

/** Each request alone, to its last token. */
async function answers(d: StepDriver, requests: readonly TestSampling[]): Promise<Answer[]> {
  const result: Answer[] = [];
  for (const [i, sampling] of requests.entries()) {
    const row: TestRow = d.add(i % 8, prompts[i % 4]!, sampling);
    const steps: StepResult[] = [];
    while (steps.length < numTokens)
      steps.push(await d.run([{ row, count: row.tokens.length - row.numComputed }]));
    d.preempt(row);
    const all = (pick: (columns: StepResult['columns']) => Iterable<number>) =>
      steps.flatMap(({ columns }) => [...pick(columns)]);
    result.push({
      tokens: all((c) => c.tokenId),
      logprobs: all((c) => c.logprob),
      ranks: all((c) => c.logprobRank),
      topIds: all((c) => c.topIds),
    });
  }
  return result;
}

t.test('reference and cpu draw the same tokens', async (t) => {
  const requests = Array.from({ length: numRequests }, randomSampling);
  const both: Answer[][] = [];
  for (const backend of [new ReferenceBackend(), new CpuBackend()]) {
    await loadFolder(backend, demoFolder);
    both.push(await answers(new StepDriver(backend, 16, 256), requests));
    await backend.close();
  }
  const [reference, cpu] = both as [Answer[], Answer[]];
  const differ = requests.flatMap((sampling, i) =>
    reference[i]!.tokens.join() === cpu[i]!.tokens.join() ? [] : [{ i, sampling }],
  );
  t.ok(differ.length <= 1, `requests that differ: ${JSON.stringify(differ, showBigInt)}`);
  requests.forEach((_, i) => {
    if (differ.some((other) => other.i === i)) return;
    t.strictSame(cpu[i]!.ranks, reference[i]!.ranks, `ranks of request ${i}`);
    t.strictSame(cpu[i]!.topIds, reference[i]!.topIds, `best ids of request ${i}`);
    const errors = cpu[i]!.logprobs.map((x, k) => Math.abs(x - reference[i]!.logprobs[k]!));
    t.ok(Math.max(...errors) < 1e-4, `logprobs of request ${i} within ${Math.max(...errors)}`);
  });
  t.ok(new Set(reference.map(({ tokens }) => tokens.join())).size > numRequests / 2);
});

function showBigInt(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
