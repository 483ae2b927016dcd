// Runs the demo model over scripted batches and keeps what must not depend on them: one row's
// sampled ids, logprobs and logits.
import { stepFlags } from '../../../common/wire/step.ts';
import type { StepResult } from '../../../kernels/backend.ts';
import { blocksFor, type Harness, type NewRow } from './harness.ts';

const { sample } = stepFlags;

/** Prompts of different lengths; the first is the one that is watched. */
function promptOf(i: number, longer: number): number[] {
  const length = 45 + longer + ((i * 13) % 40);
  return Array.from({ length }, (_, j) => (j * 31 + i * 977 + 5) % 8192);
}

export function newRow(row: number, prompt: number, longer = 0): NewRow {
  const tokens = promptOf(prompt, longer);
  const params = { temperature: 0.9, seed: 77 + prompt, topP: 0.95, logprobs: 5 };
  const numTokens = 128 + 16 * Math.ceil(longer / 16);
  return { row, tokens, params, blocks: blocksFor(numTokens, 1 + (row * numTokens) / 16) };
}

/** What of a step's result must not change: id, logprobs, and the watched row's logits. */
export function fingerprint(
  model: Harness,
  result: StepResult,
  index: number,
  logitRow = result.columns.logprobIndex.indexOf(index),
): string {
  const { columns } = result;
  const r = columns.logprobIndex.indexOf(index);
  const topAt = columns.topCount.subarray(0, Math.max(r, 0)).reduce((sum, n) => sum + n, 0);
  const top = columns.topLogprobs.slice(topAt, topAt + (columns.topCount[r] ?? 0));
  const logits = new Float32Array(model.backend.readBuffer(model.logitsBuffer));
  const row = logits.slice(logitRow * 8192, (logitRow + 1) * 8192);
  return [
    columns.tokenId[index],
    columns.logprob[r],
    columns.logprobRank[r],
    top.join(' '),
    Buffer.from(row.buffer).toString('base64'),
  ].join('|');
}

interface GenerateOptions {
  readonly numGenerated?: number;
  /** Alternatives that rows ask for; null = none. */
  readonly logprobs?: number | null;
  /** Tokens more in each prompt. */
  readonly longer?: number;
}

/** Prefill in chunks, then decode steps, of `count` rows; row `watched` is fingerprinted. */
export function generate(
  count: number,
  watched: number,
  chunk: number,
  { numGenerated = 3, logprobs = 5, longer = 0 }: GenerateOptions = {},
) {
  return async (model: Harness): Promise<string[]> => {
    // Row `watched` runs prompt 0; the others run prompts of their own.
    const prompts = Array.from({ length: count }, (_, i) => (i === watched ? 0 : i + 1));
    const rows = prompts.map((prompt, row) => {
      const made = newRow(row, prompt, longer);
      return { ...made, params: { ...made.params, logprobs } };
    });
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
      if (scheduled[watched]!.flags !== sample) continue;
      const logitRow = scheduled.slice(0, watched).filter(({ flags }) => flags === sample).length;
      prints.push(fingerprint(model, result, watched, logitRow));
    }
    return prints;
  };
}
