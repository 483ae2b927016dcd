// One row of logits to one token id, exactly as docs/sampling.md says; section numbers are its.
import { argmax, expSum } from './logprobs.ts';
import { philox } from './philox.ts';
import type { Row } from './row-table.ts';

const { fround } = Math;
const greedyBelow = 1e-5;

/** The sampled id, or -1 if the row cannot be sampled. `logits` is left alone. */
export function sampleRow(logits: Float32Array, row: Row): number {
  if (!isFinite(logits)) return -1;
  const z = logits.slice();
  mask(z, row);
  bias(z, row);
  penalize(z, row);
  if (!isFinite(z)) return -1;
  const best = argmax(z);
  const { temperature } = row.sampling;
  const isGreedy = temperature < greedyBelow;
  if (!isGreedy) z.forEach((x, id) => (z[id] = x / temperature));
  if (z[best] === -Infinity) return -1;
  if (isGreedy) return best;
  truncate(z, row);
  return draw(z, row);
}

/** Section 2: -Infinity is a logit like any other, NaN and +Infinity are not. */
export function isFinite(logits: Float32Array): boolean {
  return logits.every((x) => x < Infinity);
}

/** Section 3: allowed ids, bad words, min_tokens. */
function mask(z: Float32Array, { sampling, tokens, numTokens, numPromptTokens }: Row): void {
  const forbid = (id: number) => {
    if (id >= 0 && id < z.length) z[id] = -Infinity;
  };
  if (sampling.allowedIds.length > 0) {
    const allowed = new Set(sampling.allowedIds);
    z.forEach((_, id) => {
      if (!allowed.has(id)) forbid(id);
    });
  }
  const generated = tokens.subarray(numPromptTokens, numTokens);
  for (const word of sampling.badWords) {
    const prefix = word.subarray(0, -1);
    const tail = generated.subarray(Math.max(0, generated.length - prefix.length));
    if (tail.length === prefix.length && prefix.every((id, i) => id === tail[i]))
      forbid(word.at(-1)!);
  }
  if (generated.length < sampling.minTokens) for (const id of sampling.stopIds) forbid(id);
}

function bias(z: Float32Array, { sampling: { logitBiasIds, logitBias } }: Row): void {
  logitBiasIds.forEach((id, i) => {
    const value = Math.min(100, Math.max(-100, logitBias[i]!));
    if (id >= 0 && id < z.length) z[id]! += value;
  });
}

/** Section 3: repetition, frequency and presence penalties. */
function penalize(z: Float32Array, { sampling, tokens, numTokens, numPromptTokens }: Row): void {
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = sampling;
  if (repetitionPenalty !== 1)
    for (const id of new Set(tokens.subarray(0, numTokens)))
      z[id] = z[id]! > 0 ? z[id]! / repetitionPenalty : z[id]! * repetitionPenalty;
  if (frequencyPenalty === 0 && presencePenalty === 0) return;
  const counts = new Map<number, number>();
  for (const id of tokens.subarray(numPromptTokens, numTokens))
    counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) {
    if (frequencyPenalty !== 0) z[id] = z[id]! - fround(frequencyPenalty * count);
    if (presencePenalty !== 0) z[id] = z[id]! - presencePenalty;
  }
}

/** Section 5, of logits divided by the temperature: min-p, top-k and top-p. */
function truncate(z: Float32Array, { sampling }: Row): void {
  const { minP, topK, topP } = sampling;
  const max = z[argmax(z)]!;
  if (minP > 0) keepFrom(z, fround(max + fround(Math.log(minP))));
  const sorted = z
    .filter((x) => x > -Infinity)
    .sort()
    .reverse();
  if (topK > 0 && topK < sorted.length) keepFrom(z, sorted[topK - 1]!);
  if (topP < 1) keepFrom(z, topPThreshold(z, max, topP));
}

function keepFrom(z: Float32Array, threshold: number): void {
  z.forEach((x, id) => {
    if (!(x >= threshold)) z[id] = -Infinity;
  });
}

/** The greatest value whose mass, with all that is not below it, reaches topP of the whole. */
function topPThreshold(z: Float32Array, max: number, topP: number): number {
  const sorted = z
    .filter((x) => x > -Infinity)
    .sort()
    .reverse();
  const wanted = topP * expSum(z, max);
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (expSum(z, max, sorted[middle]) >= wanted) high = middle;
    else low = middle + 1;
  }
  return sorted[low]!;
}

/** Section 6: the argmax of z plus Gumbel noise. */
function draw(z: Float32Array, { sampling, numTokens: position }: Row): number {
  const words = new Uint32Array(4);
  let best = -1;
  let bestValue = -Infinity;
  let counter = -1;
  z.forEach((x, id) => {
    if (x === -Infinity) return;
    if (id >> 2 !== counter) {
      counter = id >> 2;
      philox(words, position, counter, 0, 0, sampling.seedLow, sampling.seedHigh);
    }
    const u = ((words[id & 3]! >>> 9) + 0.5) * 2 ** -23;
    const noise = -fround(Math.log(-fround(Math.log(u))));
    const value = fround(x + noise);
    if (value > bestValue) {
      best = id;
      bestValue = value;
    }
  });
  return best;
}
