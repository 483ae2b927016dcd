// One step laid out token by token: where each token is, where its K and V go, and which tokens
// need logits. Built from the row table and the step's columns.
import { KernelError } from '../../common/errors.ts';
import { stepFlags, type StepInputColumns } from '../../common/wire/step.ts';
import { check, type Row, type RowTable } from './row-table.ts';

/** A row of the step and its chunk: tokens [start, start + count) of the row. */
export interface BatchRow {
  readonly index: number;
  readonly row: Row;
  readonly start: number;
  readonly count: number;
  readonly isSampled: boolean;
  readonly hasPromptLogprobs: boolean;
}

/** Logits of batch token `token`; they judge the prompt token at `promptPosition`, or sample (-1). */
export interface LogitRow {
  readonly batchIndex: number;
  readonly token: number;
  readonly promptPosition: number;
}

export interface Batch {
  readonly rows: readonly BatchRow[];
  readonly logitRows: readonly LogitRow[];
  readonly numTokens: number;
  /** [numTokens] */
  readonly tokenIds: Int32Array;
  readonly positions: Int32Array;
  /** [numTokens] blockId * blockSize + offset; -1 = nothing is written */
  readonly slotMapping: Int32Array;
  /** [numTokens] index into rows */
  readonly rowOfToken: Int32Array;
}

export interface BatchLimits {
  readonly maxNumSeqs: number;
  readonly maxNumTokens: number;
  readonly blockSize: number;
}

/** Throws KernelError for a chunk that is out of bounds or has no block. */
export function makeBatch(table: RowTable, columns: StepInputColumns, limits: BatchLimits): Batch {
  const { row: index, start, count, flags } = columns;
  check(index.length, 0, limits.maxNumSeqs + 1, 'number of rows');
  const rows = Array.from(index, (at, i): BatchRow => {
    const isSampled = (flags[i]! & stepFlags.sample) !== 0;
    const hasPromptLogprobs = (flags[i]! & stepFlags.promptLogprobs) !== 0;
    const row = table.get(at);
    checkChunk(row, at, start[i]!, count[i]!, isSampled);
    return { index: at, row, start: start[i]!, count: count[i]!, isSampled, hasPromptLogprobs };
  });
  const numTokens = rows.reduce((sum, row) => sum + row.count, 0);
  check(numTokens, 0, limits.maxNumTokens + 1, 'number of tokens');
  return { rows, numTokens, ...layTokens(rows, numTokens, limits.blockSize) };
}

/** A row that has ended knows fewer tokens than the engine thinks; its chunks are computed by nobody. */
function checkChunk(row: Row, index: number, start: number, count: number, isSampled: boolean) {
  if (row.hasEnded) return;
  check(count, 1, row.numTokens - start + 1, `count of row ${index}`);
  check(start, 0, row.numTokens, `start of row ${index}`);
  if (isSampled && start + count !== row.numTokens)
    throw new KernelError(`row ${index} samples at ${start + count} of ${row.numTokens} tokens`);
}

function layTokens(rows: readonly BatchRow[], numTokens: number, blockSize: number) {
  const tokenIds = new Int32Array(numTokens);
  const positions = new Int32Array(numTokens);
  const slotMapping = new Int32Array(numTokens).fill(-1);
  const rowOfToken = new Int32Array(numTokens);
  const logitRows: LogitRow[] = [];
  let token = 0;
  rows.forEach(({ row, start, count, isSampled, hasPromptLogprobs }, batchIndex) => {
    for (let position = start; position < start + count; position++, token++) {
      rowOfToken[token] = batchIndex;
      if (row.hasEnded) continue;
      tokenIds[token] = row.tokens[position]!;
      positions[token] = position;
      slotMapping[token] = slotOf(row, position, blockSize);
      if (hasPromptLogprobs && position + 1 < row.numPromptTokens)
        logitRows.push({ batchIndex, token, promptPosition: position + 1 });
      if (isSampled && position === start + count - 1)
        logitRows.push({ batchIndex, token, promptPosition: -1 });
    }
  });
  return { tokenIds, positions, slotMapping, rowOfToken, logitRows };
}

/** Where K and V of a position lie. Block 0 is the null block: nobody's. */
export function slotOf(row: Row, position: number, blockSize: number): number {
  const block = row.blockTable[Math.floor(position / blockSize)]!;
  if (block === 0) throw new KernelError(`a row has no block for position ${position}`);
  return block * blockSize + (position % blockSize);
}
