// sampleSharded against sample: for any number of ranks and any parameters the same ids, logprobs,
// ranks, flags and hash, bit by bit, alone and in any batch.
import t from 'tap';
import type { SamplingParams } from '../../../common/sampling-params.ts';
import { stepFlags } from '../../../common/wire/step.ts';
import { randomValues } from './one-op.ts';
import { ids, roundOf, vocabSize, type Request } from './sampler-cases.ts';
import { loadSharded, loadWhole, type LogitsStep } from './sharded-logits.ts';

t.setTimeout(600_000);

/** A step of requests that sample, some of which have prompt tokens judged before. */
function stepOf(
  requests: readonly Request[],
  logitsOf: (request: number, k: number) => Float32Array,
): LogitsStep {
  const logits: Float32Array[] = [];
  const scheduled = requests.map(({ tokens, params }, row) => {
    const numJudged = params?.promptLogprobs === undefined ? 0 : 2;
    for (let k = 0; k <= numJudged; k++) logits.push(logitsOf(row, k));
    const flags = stepFlags.sample | (numJudged > 0 ? stepFlags.promptLogprobs : 0);
    return { row, start: tokens.length - 1 - numJudged, count: 1 + numJudged, flags };
  });
  const rows = requests.map((request, row) => ({ ...request, row, blocks: [] }));
  return { rows, scheduled, logits };
}

/** A round of parameters of all kinds; with logprobs, and prompts that are judged, here and there. */
function randomStep(round: number): LogitsStep {
  const { rows, logits } = roundOf(round);
  const requests = rows.map((request, j): Request => {
    const i = round * 16 + j;
    const params: Partial<SamplingParams> = {
      ...request.params,
      ...(i % 5 < 2 && { logprobs: [0, 1, 20][i % 3]! }),
      ...(i % 6 === 0 && { promptLogprobs: i % 4 }),
    };
    return i % 6 === 0
      ? { ...request, numPromptTokens: request.tokens.length, params }
      : { ...request, params };
  });
  return stepOf(requests, (j, k) => (k === 0 ? logits[j]! : logits[(j + 5 * k) % 16]!));
}

for (const numRanks of [2, 3, 4])
  t.test(`${numRanks} ranks: what one place with all logits makes`, async (t) => {
    const whole = await loadWhole(vocabSize);
    const sharded = await loadSharded(numRanks, vocabSize);
    t.teardown(() => Promise.all([whole.close(), sharded.close()]));
    for (let round = 0; round < 40; round++) {
      const step = randomStep(round);
      const [expected] = await whole.run(step);
      for (const [rank, { columns, hash }] of (await sharded.run(step)).entries()) {
        t.same(columns, expected!.columns, `round ${round}, rank ${rank}`);
        t.equal(hash, expected!.hash);
      }
    }
  });

const base = { tokens: ids(5, 1), numPromptTokens: 2 };

t.test('ties within and across ranks go to the lower id', async (t) => {
  const whole = await loadWhole(vocabSize);
  const sharded = await loadSharded(2, vocabSize);
  t.teardown(() => Promise.all([whole.close(), sharded.close()]));
  // Few distinct values: hundreds of ids tie at every border.
  const logitsOf = (row: number) =>
    randomValues(vocabSize, row).map((x) => Math.round(x * (1 + (row % 4))));
  const params: Partial<SamplingParams>[] = [
    { temperature: 0 },
    { temperature: 1 },
    { topK: 1 },
    { topK: 50 },
    { topK: 50, topP: 0.5 },
    { topP: 0.5 },
    { minP: 0.5 },
    { minP: 1 },
    { topK: 2000, minP: 0.01, topP: 0.9 },
  ];
  const requests = params.flatMap((p, i) => [
    { ...base, params: { ...p, seed: i, logprobs: 5 } },
    { ...base, params: { ...p, seed: i + 100 } },
  ]);
  const step = stepOf(requests, logitsOf);
  const [expected] = await whole.run(step);
  for (const { columns } of await sharded.run(step)) t.same(columns, expected!.columns);
});

t.test('top-p alone, from peaked to flat, with ties, on some ranks and on all', async (t) => {
  const size = 8000;
  const whole = await loadWhole(size);
  for (const numRanks of [2, 4]) {
    const sharded = await loadSharded(numRanks, size);
    t.teardown(() => sharded.close());
    for (const [k, spread] of [0.01, 1, 2.5, 4, 8, 30].entries()) {
      const logitsOf = (row: number) => {
        const values = randomValues(size, 100 * k + row).map((x) => x * spread);
        // In steps; much of the mass on one rank; others with few ids, or none; ids that one rank has not
        // named above those that another has.
        if (row % 5 === 1) return values.map((x) => Math.round(x * 2) / 2);
        if (row % 5 === 2) return values.map((x, id) => (id < 90 ? x + 9 : x));
        if (row % 5 === 3)
          return values.map((x, id) => (id < 4000 || id % 50 === 0 ? x : -Infinity));
        if (row % 5 === 4)
          return values.map((x, id) => {
            if (id < 200) return 0.01 * (x / spread);
            return id >= 6000 && id < 6100 ? 0.01 * (x / spread) - 0.1 : -90;
          });
        return values;
      };
      const requests = [0.05, 0.5, 0.9, 0.95, 0.999, 0.9999, 1e-7].flatMap((topP, i) =>
        [0.3, 0.8, 1.7].map((temperature, j) => ({
          ...base,
          params: {
            topP: Math.fround(topP),
            temperature,
            seed: 9 * i + j,
            ...(j === 1 && { logprobs: 3 }),
          },
        })),
      );
      const step = stepOf(requests, logitsOf);
      const [expected] = await whole.run(step);
      for (const { columns } of await sharded.run(step))
        t.same(columns, expected!.columns, `${numRanks} ranks, logits within ${spread}`);
    }
  }
  await whole.close();
});

t.test('unfit logits on one rank flag the row on all', async (t) => {
  const whole = await loadWhole(vocabSize);
  const sharded = await loadSharded(2, vocabSize);
  t.teardown(() => Promise.all([whole.close(), sharded.close()]));
  const unfit = (id: number, value: number) => {
    const logits = randomValues(vocabSize, id);
    logits[id] = value;
    return logits;
  };
  const rows = [
    unfit(3, NaN),
    unfit(2999, NaN),
    unfit(2500, Infinity),
    unfit(7, -Infinity),
    new Float32Array(vocabSize).fill(-Infinity),
    // One rank has nothing to offer.
    randomValues(vocabSize, 6).map((x, id) => (id < 2048 ? -Infinity : x)),
    randomValues(vocabSize, 7).map((x, id) => (id < 2048 ? x : -Infinity)),
    // The same, by a temperature of 0.8; or none has.
    new Float32Array(vocabSize).fill(-3e38, 0, 2048),
    new Float32Array(vocabSize).fill(-3e38, 2048),
    new Float32Array(vocabSize).fill(-3e38),
  ];
  const kinds: Partial<SamplingParams>[] = [
    { temperature: 0 },
    { temperature: 1, logprobs: 2 },
    { topK: 5, logprobs: 0 },
    { topP: 0.9 },
    { temperature: 0, allowedTokenIds: [2999], logprobs: 3 },
    { temperature: 1, promptLogprobs: 1 },
    { temperature: 0.8, logprobs: 1 },
    { temperature: 0.8, topK: 5 },
    { temperature: 0.8, minP: 0.1, logprobs: 1 },
    { temperature: 0.8, topP: 0.9 },
  ];
  for (const params of kinds) {
    const requests = rows.map(() => ({
      ...base,
      numPromptTokens: 5,
      params: { ...params, seed: 3 },
    }));
    const step = stepOf(requests, (row, k) => rows[(row + k) % rows.length]!);
    const [expected] = await whole.run(step);
    t.ok(expected!.columns.rowFlags.includes(1));
    for (const { columns } of await sharded.run(step))
      t.same(columns, expected!.columns, JSON.stringify(params));
  }
});

t.test('a row gets the same alone as among others, whatever those ask for', async (t) => {
  const sharded = await loadSharded(2, vocabSize);
  t.teardown(() => sharded.close());
  const { rows, logits } = roundOf(3);
  const together = (await sharded.run(stepOf(rows, (row) => logits[row]!)))[0]!;
  for (const [i, request] of rows.entries()) {
    const [alone] = await sharded.run(stepOf([request], () => logits[i]!));
    t.equal(alone!.columns.tokenId[0], together.columns.tokenId[i], `row ${i}`);
  }
});
