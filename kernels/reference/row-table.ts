// The worker's memory of running requests: a row each, with its token history, block table and
// sampling parameters. A step's columns change it just before the step executes.
import { KernelError } from '../../common/errors.ts';
import type { StepInputColumns } from '../../common/wire/step.ts';

export interface Row {
  /** [maxModelLen]; the first numTokens are known. */
  readonly tokens: Int32Array;
  numTokens: number;
  numPromptTokens: number;
  /** [maxNumBlocks] block ids in position order; 0 = none. */
  readonly blockTable: Int32Array;
  /** Tokens with which its request is at its end by length. */
  maxNumTokens: number;
  /** It was seen to end (docs/sampling.md, section 8): later steps do nothing for it. */
  hasEnded: boolean;
  sampling: RowSampling;
}

/** As common/sampling-params.ts says, in the units of the step's columns. */
export interface RowSampling {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  readonly seedLow: number;
  readonly seedHigh: number;
  readonly minTokens: number;
  readonly numLogprobs: number;
  readonly numPromptLogprobs: number;
  /** In place of the best ids; empty = none. */
  readonly logprobIds: Int32Array;
  readonly stopIds: Int32Array;
  readonly logitBiasIds: Int32Array;
  readonly logitBias: Float32Array;
  readonly allowedIds: Int32Array;
  readonly badWords: readonly Int32Array[];
}

export interface RowTableSizes {
  readonly maxNumSeqs: number;
  readonly maxModelLen: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly vocabSize: number;
}

export class RowTable {
  private readonly sizes: RowTableSizes;
  private readonly rows: (Row | undefined)[] = [];

  constructor(sizes: RowTableSizes) {
    this.sizes = sizes;
  }

  /** Row `index`; KernelError if it was never filled. */
  get(index: number): Row {
    const row = this.rows[index];
    if (!row) throw new KernelError(`row ${index} was never filled`);
    return row;
  }

  /** KernelError if a row, length, id or count is out of range. */
  apply(columns: StepInputColumns): void {
    this.fillRows(columns);
    const { blockRow, blockIndex, blockId } = columns;
    blockRow.forEach((index, i) => {
      const { blockTable } = this.get(index);
      check(blockIndex[i]!, 0, blockTable.length, 'blockIndex');
      check(blockId[i]!, 0, this.sizes.numBlocks, 'blockId');
      blockTable[blockIndex[i]!] = blockId[i]!;
    });
  }

  private fillRows(c: StepInputColumns): void {
    const { maxNumSeqs, maxModelLen, vocabSize } = this.sizes;
    const tokenIds = new Cursor(c.newTokenIds, 'newTokenIds');
    const sampling = new SamplingReader(c);
    c.newRow.forEach((index, i) => {
      check(index, 0, maxNumSeqs, 'newRow');
      const row = (this.rows[index] ??= this.emptyRow());
      const numTokens = c.newNumTokens[i]!;
      check(numTokens, 1, maxModelLen + 1, 'newNumTokens');
      check(c.newNumPromptTokens[i]!, 1, numTokens + 1, 'newNumPromptTokens');
      const ids = tokenIds.take(numTokens);
      for (const id of ids) check(id, 0, vocabSize, 'newTokenIds');
      row.tokens.set(ids);
      row.numTokens = numTokens;
      row.numPromptTokens = c.newNumPromptTokens[i]!;
      row.blockTable.fill(0);
      row.maxNumTokens = c.newMaxNumTokens[i]!;
      row.hasEnded = false;
      row.sampling = sampling.read(i);
      for (const id of row.sampling.logprobIds) check(id, 0, vocabSize, 'logprobIds');
    });
    tokenIds.end();
    sampling.end();
  }

  private emptyRow(): Row {
    const { maxModelLen, blockSize } = this.sizes;
    return {
      tokens: new Int32Array(maxModelLen),
      numTokens: 0,
      numPromptTokens: 0,
      blockTable: new Int32Array(Math.ceil(maxModelLen / blockSize)),
      maxNumTokens: 0,
      hasEnded: false,
      sampling: undefined as unknown as RowSampling,
    };
  }
}

class SamplingReader {
  private readonly columns: StepInputColumns;
  private readonly logprobIds: Cursor<Int32Array>;
  private readonly stopIds: Cursor<Int32Array>;
  private readonly logitBiasIds: Cursor<Int32Array>;
  private readonly logitBias: Cursor<Float32Array>;
  private readonly allowedIds: Cursor<Int32Array>;
  private readonly badWordLength: Cursor<Int32Array>;
  private readonly badWordIds: Cursor<Int32Array>;

  constructor(columns: StepInputColumns) {
    this.columns = columns;
    this.logprobIds = new Cursor(columns.logprobIds, 'logprobIds');
    this.stopIds = new Cursor(columns.stopIds, 'stopIds');
    this.logitBiasIds = new Cursor(columns.logitBiasIds, 'logitBiasIds');
    this.logitBias = new Cursor(columns.logitBias, 'logitBias');
    this.allowedIds = new Cursor(columns.allowedIds, 'allowedIds');
    this.badWordLength = new Cursor(columns.badWordLength, 'badWordLength');
    this.badWordIds = new Cursor(columns.badWordIds, 'badWordIds');
  }

  /** Rows are read in order: the lists lie one after another. */
  read(i: number): RowSampling {
    const c = this.columns;
    const seed = c.newSeed[i]!;
    const words = this.badWordLength.take(c.newNumBadWords[i]!);
    return {
      temperature: c.newTemperature[i]!,
      topP: c.newTopP[i]!,
      topK: c.newTopK[i]!,
      minP: c.newMinP[i]!,
      presencePenalty: c.newPresencePenalty[i]!,
      frequencyPenalty: c.newFrequencyPenalty[i]!,
      repetitionPenalty: c.newRepetitionPenalty[i]!,
      seedLow: Number(seed & 0xffffffffn),
      seedHigh: Number(seed >> 32n),
      minTokens: c.newMinTokens[i]!,
      numLogprobs: c.newNumLogprobs[i]!,
      numPromptLogprobs: c.newNumPromptLogprobs[i]!,
      logprobIds: this.logprobIds.take(c.newNumLogprobIds[i]!),
      stopIds: this.stopIds.take(c.newNumStopIds[i]!),
      logitBiasIds: this.logitBiasIds.take(c.newNumLogitBias[i]!),
      logitBias: this.logitBias.take(c.newNumLogitBias[i]!),
      allowedIds: this.allowedIds.take(c.newNumAllowedIds[i]!),
      badWords: Array.from(words, (length) => this.badWordIds.take(length)),
    };
  }

  end(): void {
    for (const cursor of [this.logprobIds, this.stopIds]) cursor.end();
    for (const cursor of [this.logitBiasIds, this.logitBias]) cursor.end();
    for (const cursor of [this.allowedIds, this.badWordLength, this.badWordIds]) cursor.end();
  }
}

/** Takes a column apart, piece after piece; each piece is a copy. */
class Cursor<T extends Int32Array | Float32Array> {
  private readonly column: T;
  private readonly name: string;
  private position = 0;

  constructor(column: T, name: string) {
    this.column = column;
    this.name = name;
  }

  take(count: number): T {
    const start = this.position;
    check(count, 0, this.column.length - start + 1, `count of ${this.name}`);
    this.position += count;
    return this.column.slice(start, this.position) as T;
  }

  end(): void {
    if (this.position !== this.column.length)
      throw new KernelError(`${this.name} has ${this.column.length} entries, not ${this.position}`);
  }
}

/** min <= value < end, else KernelError. */
export function check(value: number, min: number, end: number, name: string): void {
  if (!(value >= min && value < end))
    throw new KernelError(`${name} ${value} is not within [${min}, ${end})`);
}
