// Plays the engine for one backend: fills rows, hands out blocks, sends steps, and waits for their
// results. Tests schedule by hand, so that any chunking, batch or preemption can be tried.
import { packColumns } from '../../common/wire/columns.ts';
import { stepFlags, stepInputColumns, type StepInputColumns } from '../../common/wire/step.ts';
import type { Backend, StepResult } from '../../kernels/backend.ts';

export interface TestSampling {
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  repetitionPenalty?: number;
  seed?: bigint;
  minTokens?: number;
  /** Prompt and output; absent = no end by length. */
  maxNumTokens?: number;
  logprobs?: number;
  promptLogprobs?: number;
  logprobIds?: readonly number[];
  stopIds?: readonly number[];
  logitBias?: readonly (readonly [number, number])[];
  allowedIds?: readonly number[];
  badWords?: readonly (readonly number[])[];
}

export interface TestRow {
  readonly row: number;
  readonly sampling: TestSampling;
  /** Prompt and what was generated since. */
  tokens: number[];
  numPromptTokens: number;
  numComputed: number;
  blocks: number[];
  isNew: boolean;
  numBlocksSent: number;
}

export interface Chunk {
  readonly row: TestRow;
  readonly count: number;
}

type Lists = Record<keyof StepInputColumns, (number | bigint)[]>;

/** A StepInput's columns from plain lists. */
export function stepColumns(lists: Lists): StepInputColumns {
  const columns: Record<string, unknown> = {};
  for (const name in stepInputColumns) {
    const key = name as keyof StepInputColumns;
    const list = lists[key];
    const type = stepInputColumns[key];
    if (type === 'u64') columns[name] = BigUint64Array.from(list as bigint[]);
    else if (type === 'f32') columns[name] = Float32Array.from(list as number[]);
    else columns[name] = Int32Array.from(list as number[]);
  }
  return columns as StepInputColumns;
}

export function emptyLists(): Lists {
  return Object.fromEntries(
    Object.keys(stepInputColumns).map((name) => [name, []]),
  ) as unknown as Lists;
}

export function pushNewRow(
  lists: Lists,
  { row, tokens, numPromptTokens, sampling }: TestRow,
): void {
  lists.newRow.push(row);
  lists.newNumTokens.push(tokens.length);
  lists.newNumPromptTokens.push(numPromptTokens);
  lists.newTokenIds.push(...tokens);
  lists.newTemperature.push(sampling.temperature ?? 0);
  lists.newTopP.push(sampling.topP ?? 1);
  lists.newTopK.push(sampling.topK ?? 0);
  lists.newMinP.push(sampling.minP ?? 0);
  lists.newPresencePenalty.push(sampling.presencePenalty ?? 0);
  lists.newFrequencyPenalty.push(sampling.frequencyPenalty ?? 0);
  lists.newRepetitionPenalty.push(sampling.repetitionPenalty ?? 1);
  lists.newSeed.push(sampling.seed ?? 0n);
  lists.newMinTokens.push(sampling.minTokens ?? 0);
  lists.newMaxNumTokens.push(sampling.maxNumTokens ?? 2 ** 30);
  lists.newNumLogprobs.push(sampling.logprobs ?? -1);
  lists.newNumPromptLogprobs.push(sampling.promptLogprobs ?? -1);
  lists.newNumLogprobIds.push(sampling.logprobIds?.length ?? 0);
  lists.logprobIds.push(...(sampling.logprobIds ?? []));
  lists.newNumStopIds.push(sampling.stopIds?.length ?? 0);
  lists.stopIds.push(...(sampling.stopIds ?? []));
  lists.newNumLogitBias.push(sampling.logitBias?.length ?? 0);
  for (const [id, value] of sampling.logitBias ?? []) {
    lists.logitBiasIds.push(id);
    lists.logitBias.push(value);
  }
  lists.newNumAllowedIds.push(sampling.allowedIds?.length ?? 0);
  lists.allowedIds.push(...(sampling.allowedIds ?? []));
  lists.newNumBadWords.push(sampling.badWords?.length ?? 0);
  for (const word of sampling.badWords ?? []) {
    lists.badWordLength.push(word.length);
    lists.badWordIds.push(...word);
  }
}

export class StepDriver {
  readonly backend: Backend;
  private readonly blockSize: number;
  private readonly freeBlocks: number[];
  private step = 0;
  private readonly waiting: { resolve: (r: StepResult) => void; reject: (e: Error) => void }[] = [];

  constructor(backend: Backend, blockSize: number, numBlocks: number) {
    this.backend = backend;
    this.blockSize = blockSize;
    // Handed out from the end: never in order of position.
    this.freeBlocks = Array.from({ length: numBlocks - 1 }, (_, i) => i + 1);
    backend.onStep = (result) => this.waiting.shift()!.resolve(result);
    backend.onError = (error) => {
      for (const { reject } of this.waiting.splice(0)) reject(error);
    };
  }

  add(row: number, prompt: readonly number[], sampling: TestSampling = {}): TestRow {
    return {
      row,
      sampling,
      tokens: [...prompt],
      numPromptTokens: prompt.length,
      numComputed: 0,
      blocks: [],
      isNew: true,
      numBlocksSent: 0,
    };
  }

  /** Starts `row` with the KV of the first blocks of another, as a prefix hit does. */
  share(row: TestRow, other: TestRow, numBlocks: number): void {
    row.blocks = other.blocks.slice(0, numBlocks);
    row.numComputed = numBlocks * this.blockSize;
  }

  /** Gives the blocks back; the row is sent in full again and recomputed. */
  preempt(row: TestRow): void {
    this.freeBlocks.unshift(...row.blocks);
    row.blocks = [];
    row.numComputed = 0;
    row.isNew = true;
    row.numBlocksSent = 0;
  }

  /** Sends one step; resolves when its result is there, with sampled ids appended. */
  async run(chunks: readonly Chunk[]): Promise<StepResult> {
    const lists = emptyLists();
    for (const chunk of chunks) this.schedule(lists, chunk);
    const { body, table } = pack(lists);
    const numTokens = chunks.reduce((sum, { count }) => sum + count, 0);
    const result = await new Promise<StepResult>((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.backend.submit(this.step++, numTokens, body, table);
    });
    chunks.forEach(({ row, count }, i) => {
      row.numComputed += count;
      const id = result.columns.tokenId[i]!;
      if (id >= 0) row.tokens.push(id);
    });
    return result;
  }

  private schedule(lists: Lists, { row, count }: Chunk): void {
    const end = row.numComputed + count;
    while (row.blocks.length * this.blockSize < end) {
      const block = this.freeBlocks.pop();
      if (block === undefined) throw new Error('the test is out of blocks');
      row.blocks.push(block);
    }
    if (row.isNew) pushNewRow(lists, row);
    row.isNew = false;
    for (; row.numBlocksSent < row.blocks.length; row.numBlocksSent++) {
      lists.blockRow.push(row.row);
      lists.blockIndex.push(row.numBlocksSent);
      lists.blockId.push(row.blocks[row.numBlocksSent]!);
    }
    lists.row.push(row.row);
    lists.start.push(row.numComputed);
    lists.count.push(count);
    const sample = end === row.tokens.length ? stepFlags.sample : 0;
    const prompt = row.sampling.promptLogprobs === undefined ? 0 : stepFlags.promptLogprobs;
    lists.flags.push(sample | prompt);
  }
}

export function pack(lists: Lists): { body: Uint8Array; table: Int32Array } {
  const { table, body } = packColumns(stepColumns(lists));
  return { body, table: Int32Array.from(table.flatMap(([, , offset, count]) => [offset, count])) };
}
