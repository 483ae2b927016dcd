// A worker without a model: it keeps rows, block tables and a KV cache of token ids exactly as the
// row table is defined, and the token that it samples is a hash of the row's whole history, read
// through the block table. Whoever reuses a block too early, hits a wrong one or miscounts a position
// gets other tokens, or an error. Slots that a step is going to write hold poison from the moment
// the step is submitted.
import type { StepInput } from '../common/wire/messages.ts';
import { rowFlags, stepFlags, type StepOutputColumns } from '../common/wire/step.ts';

export interface FakeModelOptions {
  readonly maxNumSeqs: number;
  readonly maxModelLen: number;
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly vocabSize: number;
  /** false: tokens depend on seed and position only; far cheaper for long histories. */
  readonly readHistory: boolean;
  /** Positions of history that a token depends on; 0 = all. */
  readonly slidingWindow: number;
  /** Histories (by hash) whose logits are NaN. */
  readonly isNan?: (hash: number) => boolean;
}

interface Row {
  tokens: number[];
  numPromptTokens: number;
  seed: number;
  minTokens: number;
  maxNumTokens: number;
  numLogprobs: number;
  numPromptLogprobs: number;
  logprobIds: readonly number[];
  stopIds: readonly number[];
  /** Positions whose slots were written, or were there when the row began. */
  numComputed: number;
  finished: boolean;
}

type Submitted = Pick<StepInput, 'step' | 'columns'>;

const poison = 0;

export class FakeModel {
  readonly inFlight: Submitted[] = [];
  private readonly options: FakeModelOptions;
  private readonly rows: (Row | null)[];
  private readonly maxNumBlocks: number;
  /** [maxNumSeqs * maxNumBlocks] as of the last step executed, and as of the last one submitted. */
  private readonly executedBlocks: Int32Array;
  private readonly submittedBlocks: Int32Array;
  /** [numBlocks * blockSize] token id + 1 at each slot. */
  private readonly kv: Int32Array;

  constructor(options: FakeModelOptions) {
    this.options = options;
    this.rows = new Array<Row | null>(options.maxNumSeqs).fill(null);
    this.maxNumBlocks = Math.ceil(options.maxModelLen / options.blockSize);
    this.executedBlocks = new Int32Array(options.maxNumSeqs * this.maxNumBlocks);
    this.submittedBlocks = new Int32Array(options.maxNumSeqs * this.maxNumBlocks);
    this.kv = new Int32Array(options.numBlocks * options.blockSize);
  }

  /** Keeps a copy: the columns are the sender's. */
  submit({ step, columns }: Submitted): void {
    const copy = Object.fromEntries(
      Object.entries(columns).map(([name, column]) => [name, column.slice()]),
    ) as unknown as StepInput['columns'];
    this.inFlight.push({ step, columns: copy });
    this.setBlocks(this.submittedBlocks, copy);
    if (!this.options.readHistory) return;
    for (let i = 0; i < copy.row.length; i++)
      for (let k = 0; k < copy.count[i]!; k++)
        this.kv[this.slot(this.submittedBlocks, copy.row[i]!, copy.start[i]! + k)] = poison;
  }

  /** Contents of a block that nobody may read any more. */
  poisonBlock(block: number): void {
    const { blockSize } = this.options;
    this.kv.fill(poison, block * blockSize, (block + 1) * blockSize);
  }

  /** Executes the oldest step. */
  execute(): { step: number; hash: number; columns: StepOutputColumns } {
    const { step, columns } = this.inFlight.shift()!;
    this.setRows(columns);
    this.setBlocks(this.executedBlocks, columns);
    const n = columns.row.length;
    const tokenId = new Int32Array(n).fill(-1);
    const flags = new Uint8Array(n);
    const sampled = new LogprobLists();
    const prompt = new LogprobLists();
    const positions: number[] = [];
    let hash = step | 0;
    for (let i = 0; i < n; i++) {
      const index = columns.row[i]!;
      const row = this.rowAt(index);
      const [start, count] = [columns.start[i]!, columns.count[i]!];
      this.write(index, row, start, count);
      // Each position tells of the token behind it, as a model's logits do.
      if (columns.flags[i]! & stepFlags.promptLogprobs)
        for (let at = start + 1; at <= start + count && at < row.numPromptTokens; at++) {
          prompt.addBest(i, this.history(index, row, at), row.numPromptLogprobs);
          positions.push(at);
        }
      if (!(columns.flags[i]! & stepFlags.sample)) continue;
      if (start + count !== row.tokens.length && !row.finished)
        throw new Error(`step ${step} samples row ${index} at ${start + count}`);
      if (row.finished) continue;
      const history = this.history(index, row, start + count);
      if (this.options.isNan?.(history)) {
        flags[i] = rowFlags.nan;
        row.finished = true;
        continue;
      }
      tokenId[i] = history % this.options.vocabSize;
      this.append(row, tokenId[i]!);
      if (row.logprobIds.length > 0) sampled.addNamed(i, history, row.logprobIds);
      else if (row.numLogprobs >= 0) sampled.addBest(i, history, row.numLogprobs);
      hash = mix(hash, tokenId[i]!);
    }
    return {
      step,
      hash,
      columns: {
        tokenId,
        rowFlags: flags,
        logprobIndex: Int32Array.from(sampled.index),
        logprob: Float32Array.from(sampled.logprob),
        logprobRank: Int32Array.from(sampled.rank),
        topCount: Int32Array.from(sampled.topCount),
        topIds: Int32Array.from(sampled.topIds),
        topLogprobs: Float32Array.from(sampled.topLogprobs),
        promptLogprobIndex: Int32Array.from(prompt.index),
        promptLogprobPosition: Int32Array.from(positions),
        promptLogprob: Float32Array.from(prompt.logprob),
        promptLogprobRank: Int32Array.from(prompt.rank),
        promptTopCount: Int32Array.from(prompt.topCount),
        promptTopIds: Int32Array.from(prompt.topIds),
        promptTopLogprobs: Float32Array.from(prompt.topLogprobs),
      },
    };
  }

  private rowAt(index: number): Row {
    const row = this.rows[index];
    if (!row) throw new Error(`row ${index} was never filled`);
    return row;
  }

  private setRows(c: Submitted['columns']): void {
    let token = 0;
    let stop = 0;
    let named = 0;
    for (let i = 0; i < c.newRow.length; i++) {
      const index = c.newRow[i]!;
      const tokens = [...c.newTokenIds.subarray(token, (token += c.newNumTokens[i]!))];
      this.rows[index] = {
        tokens,
        numPromptTokens: c.newNumPromptTokens[i]!,
        seed: Number(BigInt.asIntN(32, c.newSeed[i]!)),
        minTokens: c.newMinTokens[i]!,
        maxNumTokens: c.newMaxNumTokens[i]!,
        numLogprobs: c.newNumLogprobs[i]!,
        numPromptLogprobs: c.newNumPromptLogprobs[i]!,
        logprobIds: [...c.logprobIds.subarray(named, (named += c.newNumLogprobIds[i]!))],
        stopIds: [...c.stopIds.subarray(stop, (stop += c.newNumStopIds[i]!))],
        numComputed: -1,
        finished: false,
      };
    }
  }

  private setBlocks(blocks: Int32Array, c: Submitted['columns']): void {
    const { maxNumBlocks } = this;
    for (const row of c.newRow) blocks.fill(0, row * maxNumBlocks, (row + 1) * maxNumBlocks);
    for (let i = 0; i < c.blockRow.length; i++)
      blocks[c.blockRow[i]! * maxNumBlocks + c.blockIndex[i]!] = c.blockId[i]!;
  }

  private slot(blocks: Int32Array, row: number, position: number): number {
    const { blockSize } = this.options;
    const block = blocks[row * this.maxNumBlocks + Math.floor(position / blockSize)]!;
    if (block === 0) throw new Error(`row ${row} has no block for position ${position}`);
    return block * blockSize + (position % blockSize);
  }

  private write(index: number, row: Row, start: number, count: number): void {
    // Like the device: a row that it saw finish writes nothing more.
    if (row.finished) return;
    if (count < 1) throw new Error(`row ${index} has no token to run`);
    if (row.numComputed >= 0 && row.numComputed !== start)
      throw new Error(`row ${index} goes on at ${start}, not at ${row.numComputed}`);
    if (start + count > row.tokens.length)
      throw new Error(`row ${index} runs past the ${row.tokens.length} tokens it has`);
    row.numComputed = start + count;
    if (!this.options.readHistory) return;
    for (let position = start; position < start + count; position++)
      this.kv[this.slot(this.executedBlocks, index, position)] = row.tokens[position]! + 1;
  }

  /** Hash of the first `length` tokens, or the window's last of them, as the KV cache has them. */
  private history(index: number, row: Row, length: number): number {
    const { slidingWindow, readHistory } = this.options;
    let hash = mix(row.seed, length);
    if (readHistory)
      for (
        let position = slidingWindow > 0 ? Math.max(0, length - slidingWindow) : 0;
        position < length;
        position++
      )
        hash = mix(hash, this.kv[this.slot(this.executedBlocks, index, position)]!);
    return hash >>> 1;
  }

  private append(row: Row, id: number): void {
    row.tokens.push(id);
    const numOutputs = row.tokens.length - row.numPromptTokens;
    row.finished =
      row.tokens.length >= row.maxNumTokens ||
      (numOutputs >= row.minTokens && row.stopIds.includes(id));
  }
}

class LogprobLists {
  readonly index: number[] = [];
  readonly logprob: number[] = [];
  readonly rank: number[] = [];
  readonly topCount: number[] = [];
  readonly topIds: number[] = [];
  readonly topLogprobs: number[] = [];

  addBest(index: number, history: number, count: number): void {
    this.add(index, history, count);
    for (let k = 0; k < count; k++) {
      this.topIds.push((history + k) % 89);
      this.topLogprobs.push(-k);
    }
  }

  addNamed(index: number, history: number, ids: readonly number[]): void {
    this.add(index, history, ids.length);
    this.topIds.push(...ids);
    this.topLogprobs.push(...ids.map((id) => -((history + id) % 997) / 64));
  }

  private add(index: number, history: number, count: number): void {
    this.index.push(index);
    this.logprob.push(-(history % 997) / 64);
    this.rank.push(1 + (history % 5));
    this.topCount.push(count);
  }
}

function mix(hash: number, value: number): number {
  let h = Math.imul(hash ^ value, 0x9e3779b1);
  h ^= h >>> 15;
  h = Math.imul(h, 0x85ebca6b);
  return (h ^ (h >>> 13)) >>> 0;
}
