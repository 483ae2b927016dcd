// The sampler against docs/sampling.md: the generator's published answers, each rule by hand, and
// the distribution of many draws.
import t from 'tap';
import { RowLogprobs } from '../../../kernels/reference/logprobs.ts';
import { philox } from '../../../kernels/reference/philox.ts';
import type { Row, RowSampling } from '../../../kernels/reference/row-table.ts';
import { sampleRow } from '../../../kernels/reference/sampler.ts';

const off: RowSampling = {
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  seedLow: 1,
  seedHigh: 2,
  minTokens: 0,
  numLogprobs: -1,
  numPromptLogprobs: -1,
  logprobIds: new Int32Array(),
  stopIds: new Int32Array(),
  logitBiasIds: new Int32Array(),
  logitBias: new Float32Array(),
  allowedIds: new Int32Array(),
  badWords: [],
};

function rowOf(
  sampling: Partial<RowSampling>,
  prompt: number[] = [0],
  generated: number[] = [],
): Row {
  return {
    tokens: Int32Array.from([...prompt, ...generated]),
    numTokens: prompt.length + generated.length,
    numPromptTokens: prompt.length,
    blockTable: new Int32Array(),
    maxNumTokens: 1 << 30,
    hasEnded: false,
    sampling: { ...off, ...sampling },
  };
}

const ids = (...list: number[]) => Int32Array.from(list);
const logits = (...list: number[]) => Float32Array.from(list);
const greedy = { temperature: 0 };

/** How often each id is drawn with seeds 0..n - 1. */
function draw(z: Float32Array, sampling: Partial<RowSampling>, n: number): number[] {
  const counts = new Array<number>(z.length).fill(0);
  for (let seed = 0; seed < n; seed++)
    counts[sampleRow(z, rowOf({ ...sampling, seedLow: seed }))]! += 1;
  return counts;
}

t.test('philox gives the published answers of Random123', (t) => {
  const vectors: [number[], number[], number[]][] = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  for (const [counter, key, expected] of vectors) {
    const out = new Uint32Array(4);
    const [c0, c1, c2, c3] = counter as [number, number, number, number];
    philox(out, c0, c1, c2, c3, key[0]!, key[1]!);
    t.strictSame([...out], expected);
  }
  t.end();
});

t.test('greedy takes the greatest logit, ties to the lower id', (t) => {
  t.equal(sampleRow(logits(1, 5, 3, 5), rowOf(greedy)), 1);
  t.equal(sampleRow(logits(1, 5, 3, 5), rowOf({ temperature: 0.9e-5 })), 1);
  t.end();
});

t.test('rows that cannot be sampled', (t) => {
  t.equal(sampleRow(logits(1, NaN, 3), rowOf(greedy)), -1);
  t.equal(sampleRow(logits(1, Infinity, 3), rowOf({})), -1);
  t.equal(sampleRow(logits(1, -Infinity, 3), rowOf({ allowedIds: ids(1) })), -1);
  t.equal(sampleRow(logits(1, -Infinity, 3), rowOf(greedy)), 2);
  const high = { ...greedy, repetitionPenalty: 0.5 };
  t.equal(sampleRow(logits(1, 3e38, 3), rowOf(high, [1])), -1, '+Infinity by a penalty');
  const low = logits(-3e38, -3.1e38);
  t.equal(sampleRow(low, rowOf(greedy)), 0);
  t.equal(sampleRow(low, rowOf({ temperature: 0.89 })), 0);
  for (const cut of [{}, { topK: 1 }, { topP: 0.5 }, { minP: 0.5 }])
    t.equal(sampleRow(low, rowOf({ temperature: 0.5, ...cut })), -1, 'all below the least float');
  t.end();
});

t.test('allowed ids, bad words and min_tokens mask', (t) => {
  const z = logits(1, 2, 3, 4);
  t.equal(sampleRow(z, rowOf({ ...greedy, allowedIds: ids(0, 2, 99) })), 2);
  t.equal(sampleRow(z, rowOf({ ...greedy, badWords: [ids(3)] })), 2);
  const word = { ...greedy, badWords: [ids(7, 8, 3)] };
  t.equal(sampleRow(z, rowOf(word, [0], [7, 8])), 2, 'the prefix was generated');
  t.equal(sampleRow(z, rowOf(word, [7, 8], [])), 3, 'a prefix in the prompt does not count');
  t.equal(sampleRow(z, rowOf(word, [7], [8])), 3, 'nor one that begins there');
  const stop = { ...greedy, minTokens: 2, stopIds: ids(3) };
  t.equal(sampleRow(z, rowOf(stop, [0], [5])), 2);
  t.equal(sampleRow(z, rowOf(stop, [0], [5, 5])), 3);
  t.end();
});

t.test('logit bias is added, clamped to 100', (t) => {
  const z = logits(1, 2, 3);
  t.equal(sampleRow(z, rowOf({ ...greedy, logitBiasIds: ids(0), logitBias: logits(5) })), 0);
  const clamped = { ...greedy, logitBiasIds: ids(2, 99), logitBias: logits(-1000, 1) };
  t.equal(sampleRow(logits(-200, -200, 3), rowOf(clamped)), 2);
  t.end();
});

t.test('penalties count prompt and generated tokens as they should', (t) => {
  // Repetition divides what is positive and multiplies what is not, in prompt and output alike.
  t.equal(sampleRow(logits(4, 3, 0), rowOf({ ...greedy, repetitionPenalty: 2 }, [0])), 1);
  t.equal(sampleRow(logits(-1, -1.5, -9), rowOf({ ...greedy, repetitionPenalty: 2 }, [2], [0])), 1);
  // Frequency goes by count, presence does not; neither sees the prompt.
  const frequency = { ...greedy, frequencyPenalty: 1 };
  t.equal(sampleRow(logits(4, 2.5, 0), rowOf(frequency, [0, 0, 0])), 0);
  t.equal(sampleRow(logits(4, 2.5, 0), rowOf(frequency, [2], [0])), 0);
  t.equal(sampleRow(logits(4, 2.5, 0), rowOf(frequency, [2], [0, 0])), 1);
  const presence = { ...greedy, presencePenalty: 1 };
  t.equal(sampleRow(logits(4, 2.5, 0), rowOf(presence, [2], [0, 0, 0])), 0);
  t.equal(sampleRow(logits(4, 3.5, 0), rowOf(presence, [2], [0])), 1);
  t.end();
});

t.test('the same seed and position draw the same id, others do not', (t) => {
  const z = new Float32Array(1000);
  const first = sampleRow(z, rowOf({}));
  t.equal(sampleRow(z, rowOf({})), first);
  t.equal(sampleRow(z, rowOf({}, [7])), first, 'whatever the tokens before it');
  const others = [rowOf({ seedLow: 3 }), rowOf({ seedHigh: 3 }), rowOf({}, [0, 0])].map((row) =>
    sampleRow(z, row),
  );
  t.equal(new Set([first, ...others]).size, 4);
  t.end();
});

t.test('draws follow the softmax at a temperature (chi-square)', (t) => {
  const z = logits(2, 1, 0, -1, 0.5, 1.5, -2, 0.2);
  const n = 8000;
  for (const temperature of [1, 0.7, 1.8]) {
    const terms = [...z].map((x) => Math.exp(x / temperature));
    const sum = terms.reduce((a, b) => a + b, 0);
    const counts = draw(z, { temperature }, n);
    const chiSquare = counts.reduce((total, count, id) => {
      const expected = (n * terms[id]!) / sum;
      return total + (count - expected) ** 2 / expected;
    }, 0);
    // 7 degrees of freedom: above 24.3 once in a thousand.
    t.ok(chiSquare < 24.3, `temperature ${temperature}: ${chiSquare}`);
  }
  t.end();
});

const kept = (z: Float32Array, sampling: Partial<RowSampling>) =>
  draw(z, { temperature: 3, ...sampling }, 400).flatMap((count, id) => (count > 0 ? [id] : []));

t.test('top-k keeps the k greatest and what ties with the last', (t) => {
  t.strictSame(kept(logits(1, 4, 3, 2, 3), { topK: 1 }), [1]);
  t.strictSame(kept(logits(1, 4, 3, 2, 3), { topK: 2 }), [1, 2, 4]);
  t.strictSame(kept(logits(1, 4, 3, 2, 3), { topK: 99 }), [0, 1, 2, 3, 4]);
  t.end();
});

t.test('top-p keeps the fewest that reach the mass, after temperature and top-k', (t) => {
  const z = logits(...[0.5, 0.25, 0.15, 0.1].map((p) => 3 * Math.log(p)));
  t.strictSame(kept(z, { topP: 0.4 }), [0]);
  t.strictSame(kept(z, { topP: 0.6 }), [0, 1]);
  t.strictSame(kept(z, { topP: 0.8 }), [0, 1, 2]);
  t.strictSame(kept(z, { topP: 0.6, topK: 2 }), [0], 'of what top-k left, 0.67 is in the first');
  const tie = logits(0, 0, -30, 0);
  t.strictSame(kept(tie, { topP: 0.1 }), [0, 1, 3], 'ties stay');
  t.end();
});

t.test('min-p is relative to the best after temperature', (t) => {
  const z = logits(...[0.5, 0.25, 0.15, 0.1].map((p) => 3 * Math.log(p)));
  t.strictSame(kept(z, { minP: 0.45 }), [0, 1]);
  t.strictSame(kept(z, { minP: 0.25 }), [0, 1, 2]);
  t.end();
});

t.test('truncation agrees with a plain sort on random rows', (t) => {
  let state = 12345;
  const random = () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) / 2 ** 32;
  const outside: string[] = [];
  for (let round = 0; round < 30; round++) {
    const z = Float32Array.from({ length: 40 }, () => Math.round(random() * 40) / 8);
    const topK = 1 + Math.floor(random() * 20);
    const topP = 0.05 + random() * 0.9;
    const sorted = [...z.keys()].sort((a, b) => z[b]! - z[a]!);
    let candidates = sorted.filter((id) => z[id]! >= z[sorted[topK - 1]!]!);
    const mass = candidates.map((id) => Math.exp(z[id]!));
    const total = mass.reduce((a, b) => a + b, 0);
    let sum = 0;
    const last = candidates.find((_, i) => (sum += mass[i]!) >= topP * total)!;
    candidates = candidates.filter((id) => z[id]! >= z[last]!);
    // A hundred draws need not meet every candidate, but must meet no other.
    for (let seed = 0; seed < 100; seed++) {
      const id = sampleRow(z, rowOf({ topK, topP, seedLow: seed }));
      if (!candidates.includes(id)) outside.push(`round ${round}: ${id}`);
    }
  }
  t.strictSame(outside, []);
  t.end();
});

t.test('logprobs are raw, ranks and lists put ties to the lower id', (t) => {
  const z = Float32Array.from({ length: 2500 }, (_, id) => Math.sin(id * 0.37) * 4);
  z[2400] = z[17] = 6;
  const row = new RowLogprobs(z);
  const sum = [...z].reduce((total, x) => total + Math.exp(x), 0);
  t.ok(Math.abs(row.logprob(5) - (z[5]! - Math.log(sum))) < 1e-6);
  t.equal(row.rank(17), 1);
  t.equal(row.rank(2400), 1);
  const expected = [...z.keys()].sort((a, b) => z[b]! - z[a]! || a - b).slice(0, 4);
  t.strictSame([...row.best(4)], expected);
  t.strictSame([...row.best(0)], []);
  t.equal(row.rank(expected[2]!), 3);
  t.end();
});

t.test('a list is never longer than the vocabulary, and masked ids come last', (t) => {
  t.strictSame([...new RowLogprobs(logits(0, 1)).best(4)], [1, 0]);
  const masked = new RowLogprobs(logits(-Infinity, 2, -Infinity, 3));
  t.strictSame([...masked.best(4)], [3, 1, 0, 2]);
  t.end();
});
