// What is drawn under every kind of parameter follows the distribution that docs/sampling.md gives
// it, computed here in float64 from the page alone: chi-square over seeds and positions, with ids on
// both sides of every border that the draw knows (words of a Philox block, tiles of 1,024 ids).
import t, { type Test } from 'tap';
import type { SamplingParams } from '../../../common/sampling-params.ts';
import type { CpuVariant } from '../../../kernels/cpu-backend.ts';
import { sampleRow } from '../../../kernels/reference/sampler.ts';
import { defaultLoad, Harness } from './harness.ts';
import { arg, makeProgram } from './one-op.ts';
import { referenceRow, sampleAll, vocabSize, type Request } from './sampler-cases.ts';

const likely = [
  0, 1, 2, 3, 4, 5, 6, 7, 511, 1022, 1023, 1024, 1025, 1026, 2046, 2047, 2048, 2049, 2996, 2997,
  2998, 2999,
];
/** Below everything: what is not likely is never drawn. */
const logits = new Float32Array(vocabSize).fill(-200);
likely.forEach((id, i) => (logits[id] = Math.fround(Math.sin(i * 12.9898) * 2)));

const prompt = [0, 1, 5, 5, 700];
const generated = [1023, 1024, 1023, 2999, 3, 1023];

/** Probabilities of `likely`, by sections 3 and 5 of the page. */
function distribution(params: Partial<SamplingParams>): number[] {
  const z = new Map(likely.map((id) => [id, logits[id]!]));
  const change = (id: number, to: (x: number) => number) => {
    const x = z.get(id);
    if (x !== undefined) z.set(id, to(x));
  };
  const allowed = params.allowedTokenIds;
  for (const id of likely) if (allowed && !allowed.includes(id)) z.delete(id);
  for (const word of params.badWords ?? []) {
    const start = word.slice(0, -1);
    if (start.every((id, i) => generated.at(i - start.length) === id)) z.delete(word.at(-1)!);
  }
  params.logitBias?.ids.forEach((id, i) => change(id, (x) => x + params.logitBias!.values[i]!));
  const repetition = params.repetitionPenalty ?? 1;
  for (const id of new Set([...prompt, ...generated]))
    change(id, (x) => (x > 0 ? x / repetition : x * repetition));
  const { frequencyPenalty = 0, presencePenalty = 0, temperature = 1 } = params;
  for (const id of generated) change(id, (x) => x - frequencyPenalty);
  for (const id of new Set(generated)) change(id, (x) => x - presencePenalty);
  for (const id of z.keys()) change(id, (x) => x / temperature);
  const keep = (threshold: number) => {
    for (const [id, x] of z) if (x < threshold) z.delete(id);
  };
  const max = Math.max(...z.values());
  if (params.minP) keep(max + Math.log(params.minP));
  const ranked = () => [...z.values()].sort((a, b) => b - a);
  if (params.topK) keep(ranked()[params.topK - 1] ?? -Infinity);
  if (params.topP !== undefined) {
    const total = ranked().reduce((sum, x) => sum + Math.exp(x), 0);
    let mass = 0;
    keep(ranked().find((x) => (mass += Math.exp(x)) >= params.topP! * total)!);
  }
  const sum = ranked().reduce((total, x) => total + Math.exp(x), 0);
  return likely.map((id) => (z.has(id) ? Math.exp(z.get(id)!) / sum : 0));
}

const cases: Readonly<Record<string, Partial<SamplingParams>>> = {
  'nothing else': {},
  'a low temperature': { temperature: 0.4 },
  'a high temperature': { temperature: 2 },
  'top-k': { topK: 7, temperature: 1.2 },
  'top-p': { topP: 0.7 },
  'min-p': { minP: 0.15 },
  'repetition penalty': { repetitionPenalty: 1.8 },
  'frequency and presence penalty': { frequencyPenalty: 0.6, presencePenalty: -0.5 },
  'logit bias': { logitBias: { ids: [0, 2997, 0], values: [1, 1.5, 0.5] } },
  'allowed ids': { allowedTokenIds: [1, 2, 3, 1024, 2048, 2999] },
  'bad words': { badWords: [[4], [3, 1023, 2049], [1024, 2047]] },
  'all at once': {
    ...{ temperature: 1.3, topK: 12, topP: 0.95, minP: 0.02, repetitionPenalty: 1.2 },
    ...{ frequencyPenalty: 0.2, presencePenalty: 0.3, badWords: [[1025]] },
    logitBias: { ids: [1022, 2047], values: [2, -1] },
  },
};

const numPositions = 50;

/** Draw i: a seed of 64 bits for each 50 draws, each at another position; then seeds in a row. */
function requestOf(i: number, params: Partial<SamplingParams>): Request {
  const seed = BigInt(Math.floor(i / numPositions));
  const tokens = [...prompt, ...Array<number>(i % numPositions).fill(700), ...generated];
  return {
    tokens,
    numPromptTokens: tokens.length - generated.length,
    params: {
      ...params,
      seed: i % 2 === 0 ? (seed * 0x9e3779b97f4a7c15n) % 2n ** 64n : seed,
    },
  };
}

/** Counts of `likely`; anything else that was drawn is -1's. */
function count(ids: Iterable<number>): Map<number, number> {
  const counts = new Map<number, number>();
  for (const id of ids) {
    const key = likely.includes(id) ? id : -1;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

/** Chi-square as a standard normal (Wilson and Hilferty), ids of few draws taken together. */
function deviation(counts: Map<number, number>, probabilities: readonly number[], n: number) {
  let chiSquare = 0;
  let cells = 0;
  let [rareExpected, rareSeen] = [0, 0];
  const add = (expected: number, seen: number) => {
    chiSquare += (seen - expected) ** 2 / expected;
    cells++;
  };
  likely.forEach((id, i) => {
    const expected = probabilities[i]! * n;
    const seen = counts.get(id) ?? 0;
    if (expected >= 5) add(expected, seen);
    else [rareExpected, rareSeen] = [rareExpected + expected, rareSeen + seen];
  });
  if (rareExpected >= 5) add(rareExpected, rareSeen);
  const freedom = cells - 1;
  const part = 2 / (9 * freedom);
  return ((chiSquare / freedom) ** (1 / 3) - (1 - part)) / Math.sqrt(part);
}

function check(t: Test, name: string, counts: Map<number, number>, n: number): void {
  const probabilities = distribution(cases[name]!);
  t.equal(counts.get(-1) ?? 0, 0, `${name}: nothing unlikely`);
  const impossible = likely.filter((id, i) => probabilities[i] === 0 && counts.has(id));
  t.same(impossible, [], `${name}: nothing that was taken out`);
  const z = deviation(counts, probabilities, n);
  // Seeds are fixed: more than 3.7 would be seen once in ten thousand other choices of them.
  t.ok(z < 3.7, `${name}: ${z.toFixed(2)} standard deviations`);
}

async function loadSampler(variant: CpuVariant): Promise<Harness> {
  const logitsBuffer = { columns: vocabSize, logits: true } as const;
  const ops = [{ op: 'sample' as const, args: { logits: arg.buffer(0) }, attrs: {} }];
  const program = makeProgram({ ops, buffers: [logitsBuffer], rows: [], vocabSize }, 64);
  return Harness.load({ ...defaultLoad, program, weights: [] }, variant);
}

const rowsAtOnce = 40;
const numDraws = 4000;

for (const variant of ['', 'portable'] as const)
  t.test(`draws on cpu (${variant || 'best'})`, { timeout: 600_000 }, async (t) => {
    const model = await loadSampler(variant);
    for (const name of variant === '' ? Object.keys(cases) : ['all at once']) {
      const ids: number[] = [];
      while (ids.length < numDraws) {
        const rows = Array.from({ length: rowsAtOnce }, (_, i) =>
          requestOf(ids.length + i, cases[name]!),
        );
        const { columns } = await sampleAll(
          model,
          rows,
          rows.map(() => logits),
        );
        ids.push(...columns.tokenId);
      }
      check(t, name, count(ids), ids.length);
    }
    await model.close();
  });

t.test('draws on the reference', { timeout: 600_000 }, (t) => {
  for (const name of ['top-k', 'all at once']) {
    const ids = Array.from({ length: 1500 }, (_, i) =>
      sampleRow(logits, referenceRow(requestOf(i, cases[name]!))),
    );
    check(t, name, count(ids), ids.length);
  }
  t.end();
});
