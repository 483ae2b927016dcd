// Requests with sampling parameters of every kind, on logits that the test writes: for any backend
// that runs a program of the one op `sample`.
import type { Test } from 'tap';
import { defaultSamplingParams, type SamplingParams } from '../../../common/sampling-params.ts';
import { stepFlags } from '../../../common/wire/step.ts';
import type { StepResult } from '../../../kernels/backend.ts';
import { RowLogprobs } from '../../../kernels/reference/logprobs.ts';
import type { Row } from '../../../kernels/reference/row-table.ts';
import type { Harness, NewRow } from './harness.ts';
import { randomValues } from './one-op.ts';

export const vocabSize = 3000;

export type Request = Omit<NewRow, 'row' | 'blocks'>;

export const ids = (count: number, seed: number) =>
  [...randomValues(count, seed)].map((x) => Math.floor(((x + 1) / 2) * vocabSize));

/** One step in which every row samples from its own logits. */
export async function sampleAll(
  model: Harness,
  rows: readonly Request[],
  logits: readonly Float32Array[],
  blocks: readonly number[] = [],
): Promise<StepResult> {
  const all = new Float32Array(rows.length * vocabSize);
  logits.forEach((values, i) => all.set(values, i * vocabSize));
  model.backend.writeBuffer(0, all);
  return model.step(
    rows.map((row, i) => ({ ...row, row: i, blocks })),
    rows.map((row, i) => ({
      row: i,
      start: row.tokens.length - 1,
      count: 1,
      flags: stepFlags.sample,
    })),
  );
}

/** The row as the reference's sampler takes it. */
export function referenceRow(row: Request): Row {
  const p = { ...defaultSamplingParams, ...row.params };
  return {
    tokens: Int32Array.from(row.tokens),
    numTokens: row.tokens.length,
    numPromptTokens: row.numPromptTokens ?? row.tokens.length,
    blockTable: new Int32Array(1),
    maxNumTokens: 1 << 30,
    hasEnded: false,
    sampling: {
      topK: p.topK,
      minTokens: p.minTokens,
      seedLow: Number(BigInt(p.seed ?? 0) & 0xffffffffn),
      seedHigh: Number(BigInt(p.seed ?? 0) >> 32n),
      numLogprobs: p.logprobs ?? -1,
      numPromptLogprobs: p.promptLogprobs ?? -1,
      logprobIds: Int32Array.from(p.logprobTokenIds ?? []),
      temperature: Math.fround(p.temperature),
      topP: Math.fround(p.topP),
      minP: Math.fround(p.minP),
      presencePenalty: Math.fround(p.presencePenalty),
      frequencyPenalty: Math.fround(p.frequencyPenalty),
      repetitionPenalty: Math.fround(p.repetitionPenalty),
      stopIds: Int32Array.from([...(row.stopIds ?? []), ...p.stopTokenIds]),
      logitBiasIds: Int32Array.from(p.logitBias?.ids ?? []),
      logitBias: Float32Array.from(p.logitBias?.values ?? []),
      allowedIds: Int32Array.from(p.allowedTokenIds ?? []),
      badWords: p.badWords.map((word) => Int32Array.from(word)),
    },
  };
}

/** Parameters of all kinds, alone and mixed. */
function paramsOf(i: number): Partial<SamplingParams> {
  const has = (bit: number) => ((i * 2654435761) >>> bit) % 2 === 1;
  return {
    temperature: i % 7 === 0 ? 0 : [0.3, 0.8, 1, 1.7][i % 4]!,
    seed: (BigInt(i) * 0x9e3779b97f4a7c15n) % 2n ** 64n,
    ...(has(3) && { topK: [1, 2, 50, 2999, 5000][i % 5]! }),
    ...(has(4) && { topP: [0.05, 0.5, 0.9, 0.999][i % 4]! }),
    ...(has(5) && { minP: [0.001, 0.1, 1][i % 3]! }),
    ...(has(6) && { presencePenalty: 1.5 }),
    ...(has(7) && { frequencyPenalty: -0.7 }),
    ...(has(8) && { repetitionPenalty: i % 2 ? 1.3 : 0.8 }),
    ...(has(9) && { logitBias: { ids: [5, 6, 5, 2999], values: [3, -100, 1, 200] } }),
    ...(has(10) && i % 3 === 0 && { allowedTokenIds: ids(200, i) }),
    ...(has(11) && { badWords: [[7], ids(1, i * 2), [...ids(3, i).slice(1), 9], ids(40, 3)] }),
    ...(has(12) && { minTokens: 4 }),
  };
}

/** Sixteen requests and their logits; different in each round. */
export function roundOf(round: number): { rows: Request[]; logits: Float32Array[] } {
  const rows = Array.from({ length: 16 }, (_, j) => {
    const i = round * 16 + j;
    const tokens = ids(5 + (i % 9), i);
    const stopIds = ids(4, i + 1);
    return { tokens, numPromptTokens: 1 + (i % 5), params: paramsOf(i), stopIds };
  });
  const logits = rows.map((_, j) =>
    randomValues(vocabSize, round * 100 + j).map((x) => x * x * x * (j % 4 === 0 ? 3 : 15)),
  );
  return { rows, logits };
}

/** log-softmax in float64 throughout. */
function exactLogprobs(logits: Float32Array): Float64Array {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, x) => total + Math.exp(x - max), 0);
  return Float64Array.from(logits, (x) => x - max - Math.log(sum));
}

/** Asserts that each row that asked has the logprob, rank and alternatives of its logits. */
export function hasLogprobs(
  t: Test,
  columns: StepResult['columns'],
  asked: readonly {
    readonly logprobs: number | null;
    readonly logprobTokenIds?: readonly number[];
  }[],
  logits: readonly Float32Array[],
): void {
  let top = 0;
  columns.logprobIndex.forEach((index, r) => {
    const exact = exactLogprobs(logits[index]!);
    const id = columns.tokenId[index]!;
    t.ok(Math.abs(columns.logprob[r]! - exact[id]!) < 1e-5);
    t.equal(columns.logprobRank[r], new RowLogprobs(logits[index]!).rank(id));
    const best = Array.from(logits[index]!, (x, i) => [x, i] as const)
      .sort((a, b) => b[0] - a[0] || a[1] - b[1])
      .slice(0, asked[index]!.logprobs!)
      .map(([, i]) => i);
    const wanted = asked[index]!.logprobTokenIds ?? best;
    const end = top + columns.topCount[r]!;
    t.same([...columns.topIds.subarray(top, end)], wanted, `row ${index}`);
    const errors = wanted.map((other, k) =>
      Math.abs(columns.topLogprobs[top + k]! - exact[other]!),
    );
    t.ok(Math.max(0, ...errors) < 1e-5, `row ${index} within ${Math.max(0, ...errors)}`);
    top = end;
  });
  t.equal(columns.topIds.length, top);
}
