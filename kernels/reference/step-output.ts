// Collects a step's results, row by row, into StepOutput's columns; and the `sample` op, which
// fills it.
import { rowFlags, type StepOutputColumns } from '../../common/wire/step.ts';
import type { Batch, LogitRow } from './batch.ts';
import { RowLogprobs } from './logprobs.ts';
import type { Row } from './row-table.ts';
import { isFinite, sampleRow } from './sampler.ts';

export class StepOutput {
  readonly numTop: number;
  private readonly batch: Batch;
  private readonly tokenId: Int32Array;
  private readonly rowFlags: Uint8Array;
  private readonly sampled: Entries;
  private readonly prompt: Entries;

  constructor(batch: Batch) {
    this.batch = batch;
    this.numTop = Math.max(0, ...batch.logitRows.map((logitRow) => numLogprobs(batch, logitRow)));
    this.tokenId = new Int32Array(batch.rows.length).fill(-1);
    this.rowFlags = new Uint8Array(batch.rows.length);
    this.sampled = new Entries(this.numTop);
    this.prompt = new Entries(this.numTop);
  }

  /** Handles the logits of one logit row; a sampled id joins its row's history. */
  take(logitRow: LogitRow, logits: Float32Array): void {
    const { batchIndex, promptPosition } = logitRow;
    const { row } = this.batch.rows[batchIndex]!;
    if (row.hasEnded) return;
    if (promptPosition >= 0) {
      if (!isFinite(logits)) this.fail(batchIndex);
      else this.prompt.add(batchIndex, promptPosition, logits, row.tokens[promptPosition]!);
      return;
    }
    const id = sampleRow(logits, row);
    if (id < 0) {
      this.fail(batchIndex);
      return;
    }
    this.tokenId[batchIndex] = id;
    if (row.sampling.numLogprobs >= 0) this.sampled.add(batchIndex, -1, logits, id);
    if (row.numTokens < row.tokens.length) row.tokens[row.numTokens++] = id;
    row.hasEnded = isAtEnd(row, id);
  }

  columns(): StepOutputColumns {
    const { tokenId, sampled, prompt } = this;
    return {
      tokenId,
      rowFlags: this.rowFlags,
      logprobIndex: Int32Array.from(sampled.batchIndices),
      logprob: Float32Array.from(sampled.logprobs),
      logprobRank: Int32Array.from(sampled.ranks),
      topIds: sampled.topIds(),
      topLogprobs: sampled.topLogprobs(),
      promptLogprobIndex: Int32Array.from(prompt.batchIndices),
      promptLogprobPosition: Int32Array.from(prompt.positions),
      promptLogprob: Float32Array.from(prompt.logprobs),
      promptLogprobRank: Int32Array.from(prompt.ranks),
      promptTopIds: prompt.topIds(),
      promptTopLogprobs: prompt.topLogprobs(),
    };
  }

  /** docs/sampling.md, section 7. */
  hash(): number {
    let hash = 0x811c9dc5;
    this.batch.rows.forEach(({ index, row }, i) => {
      for (const word of [index, row.numTokens, this.tokenId[i]!])
        hash = Math.imul(hash ^ word, 0x01000193);
    });
    return hash >>> 0;
  }

  private fail(batchIndex: number): void {
    this.rowFlags[batchIndex] = rowFlags.nan;
    this.batch.rows[batchIndex]!.row.hasEnded = true;
  }
}

/** The engine's update() decides by the same rule. */
function isAtEnd({ numTokens, numPromptTokens, maxNumTokens, tokens, sampling }: Row, id: number) {
  const numGenerated = numTokens - numPromptTokens;
  if (numGenerated >= sampling.minTokens && sampling.stopIds.includes(id)) return true;
  return numTokens >= maxNumTokens || numTokens >= tokens.length;
}

function numLogprobs(batch: Batch, { batchIndex, promptPosition }: LogitRow): number {
  const { sampling } = batch.rows[batchIndex]!.row;
  return promptPosition < 0 ? sampling.numLogprobs : sampling.numPromptLogprobs;
}

/** Growing columns of tokens with logprobs. */
class Entries {
  readonly batchIndices: number[] = [];
  readonly positions: number[] = [];
  readonly logprobs: number[] = [];
  readonly ranks: number[] = [];
  private readonly numTop: number;
  private readonly ids: Int32Array[] = [];
  private readonly values: Float32Array[] = [];

  constructor(numTop: number) {
    this.numTop = numTop;
  }

  add(batchIndex: number, position: number, logits: Float32Array, id: number): void {
    const row = new RowLogprobs(logits);
    const ids = new Int32Array(this.numTop);
    const values = new Float32Array(this.numTop);
    row.top(ids, values, 0, this.numTop);
    this.batchIndices.push(batchIndex);
    this.positions.push(position);
    this.logprobs.push(row.logprob(id));
    this.ranks.push(row.rank(id));
    this.ids.push(ids);
    this.values.push(values);
  }

  topIds(): Int32Array {
    return Int32Array.from(this.ids.flatMap((ids) => [...ids]));
  }

  topLogprobs(): Float32Array {
    return Float32Array.from(this.values.flatMap((values) => [...values]));
  }
}
