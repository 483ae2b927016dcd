// Collects a step's results, row by row, into StepOutput's columns; and the `sample` op, which
// fills it.
import { rowFlags, type StepOutputColumns } from '../../common/wire/step.ts';
import type { Batch, LogitRow } from './batch.ts';
import { RowLogprobs } from './logprobs.ts';
import type { Row, RowSampling } from './row-table.ts';
import { isFinite, sampleRow } from './sampler.ts';

export class StepOutput {
  private readonly batch: Batch;
  private readonly tokenId: Int32Array;
  private readonly rowFlags: Uint8Array;
  private readonly sampled = new Entries();
  private readonly prompt = new Entries();

  constructor(batch: Batch) {
    this.batch = batch;
    this.tokenId = new Int32Array(batch.rows.length).fill(-1);
    this.rowFlags = new Uint8Array(batch.rows.length);
  }

  /** Handles the logits of one logit row; a sampled id joins its row's history. */
  take(logitRow: LogitRow, logits: Float32Array): void {
    const { batchIndex, promptPosition } = logitRow;
    const { row } = this.batch.rows[batchIndex]!;
    if (row.hasEnded) return;
    if (promptPosition >= 0) {
      if (!isFinite(logits)) this.fail(batchIndex);
      else this.addPrompt(batchIndex, promptPosition, logits, row);
      return;
    }
    const id = sampleRow(logits, row);
    if (id < 0) {
      this.fail(batchIndex);
      return;
    }
    this.tokenId[batchIndex] = id;
    this.addSampled(batchIndex, logits, id, row.sampling);
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
      ...{ topCount: sampled.topCount(), topIds: sampled.topIds() },
      topLogprobs: sampled.topLogprobs(),
      promptLogprobIndex: Int32Array.from(prompt.batchIndices),
      promptLogprobPosition: Int32Array.from(prompt.positions),
      promptLogprob: Float32Array.from(prompt.logprobs),
      promptLogprobRank: Int32Array.from(prompt.ranks),
      promptTopCount: prompt.topCount(),
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

  private addSampled(batchIndex: number, logits: Float32Array, id: number, asked: RowSampling) {
    const { numLogprobs, logprobIds } = asked;
    if (numLogprobs < 0) return;
    const row = new RowLogprobs(logits);
    this.sampled.add(
      batchIndex,
      -1,
      row,
      id,
      logprobIds.length > 0 ? logprobIds : row.best(numLogprobs),
    );
  }

  private addPrompt(batchIndex: number, position: number, logits: Float32Array, of: Row): void {
    const row = new RowLogprobs(logits);
    const { numPromptLogprobs } = of.sampling;
    this.prompt.add(batchIndex, position, row, of.tokens[position]!, row.best(numPromptLogprobs));
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

/** Growing columns of tokens with logprobs. */
class Entries {
  readonly batchIndices: number[] = [];
  readonly positions: number[] = [];
  readonly logprobs: number[] = [];
  readonly ranks: number[] = [];
  private readonly ids: Int32Array[] = [];
  private readonly values: Float32Array[] = [];

  /** Token `id`, with the alternatives `ids`. */
  add(batchIndex: number, position: number, row: RowLogprobs, id: number, ids: Int32Array): void {
    this.batchIndices.push(batchIndex);
    this.positions.push(position);
    this.logprobs.push(row.logprob(id));
    this.ranks.push(row.rank(id));
    this.ids.push(ids);
    this.values.push(Float32Array.from(ids, (other) => row.logprob(other)));
  }

  topCount(): Int32Array {
    return Int32Array.from(this.ids, (ids) => ids.length);
  }

  topIds(): Int32Array {
    return Int32Array.from(this.ids.flatMap((ids) => [...ids]));
  }

  topLogprobs(): Float32Array {
    return Float32Array.from(this.values.flatMap((values) => [...values]));
  }
}
