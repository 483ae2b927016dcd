// Whether the columns of TokenOutputs and TextOutputs fit each other: equal lengths, prefix sums that
// start at 0, never fall and end at the column they index. After these checks a receiver may index
// without looking. Everything throws WireError.
import { WireError } from '../errors.ts';
import { checkColumns, type Column, type Columns, type ColumnsOf } from './columns.ts';
import { finishReasons, textOutputsColumns, tokenOutputsColumns } from './messages.ts';

/** Every named column has `length` elements. */
export function checkLength(columns: Columns, length: number, ...names: readonly string[]): void {
  for (const name of names)
    if (columns[name]!.length !== length)
      throw new WireError(`column ${name} has ${columns[name]!.length} elements, not ${length}`);
}

/** `starts` is a prefix sum: [0, ..., total], never falling, n + 1 elements. */
export function checkStarts(name: string, starts: Uint32Array, n: number, total: number): void {
  if (starts.length !== n + 1)
    throw new WireError(`column ${name} has ${starts.length} elements, not ${n + 1}`);
  let last = 0;
  if (starts[0] !== 0) throw new WireError(`column ${name} does not start at 0`);
  for (const start of starts) {
    if (start < last) throw new WireError(`column ${name} falls`);
    last = start;
  }
  if (last !== total) throw new WireError(`column ${name} ends at ${last}, not ${total}`);
}

/** Every element is below `limit`. */
export function checkBelow(name: string, column: Column, limit: number): void {
  for (const value of column)
    if (!(value >= 0 && value < limit)) throw new WireError(`column ${name} holds ${value}`);
}

function sum(column: Uint8Array): number {
  let total = 0;
  for (const value of column) total += value;
  return total;
}

export function checkTokenOutputs(columns: Columns): ColumnsOf<typeof tokenOutputsColumns> {
  const c = checkColumns(columns, tokenOutputsColumns);
  const n = c.requestId.length;
  checkLength(c, n, 'frontendId', 'finishReason', 'stopTokenId', 'numCachedTokens');
  checkStarts('tokenStart', c.tokenStart, n, c.tokenIds.length);
  checkBelow('finishReason', c.finishReason, finishReasons.length);
  checkLogprobs(c, n);
  return c;
}

export function checkTextOutputs(columns: Columns): ColumnsOf<typeof textOutputsColumns> {
  const c = checkColumns(columns, textOutputsColumns);
  const n = c.requestId.length;
  checkLength(
    c,
    n,
    'finishReason',
    'stopTokenId',
    'stopStringIndex',
    'numPromptTokens',
    'numCachedTokens',
    'numOutputTokens',
  );
  checkStarts('textStart', c.textStart, n, c.text.length);
  checkStarts('tokenStart', c.tokenStart, n, c.tokenIds.length);
  checkBelow('finishReason', c.finishReason, finishReasons.length);
  checkLogprobs(c, n);
  const { logprobText, promptLogprobText } = c;
  checkStarts('logprobTextStart', c.logprobTextStart, c.logprobIds.length, logprobText.length);
  checkStarts(
    'promptLogprobTextStart',
    c.promptLogprobTextStart,
    c.promptLogprobIds.length,
    promptLogprobText.length,
  );
  return c;
}

type LogprobColumns = Pick<
  ColumnsOf<typeof tokenOutputsColumns>,
  'tokenIds' | 'logprobCount' | 'promptLogprobRow' | 'promptLogprobCount'
>;

function checkLogprobs(c: LogprobColumns & Columns, n: number): void {
  checkLength(c, c.tokenIds.length, 'logprobCount');
  checkLength(c, sum(c.logprobCount), 'logprobIds', 'logprobs', 'logprobRanks');
  const p = c.promptLogprobRow.length;
  checkLength(c, p, 'promptLogprobPosition', 'promptLogprobCount');
  checkBelow('promptLogprobRow', c.promptLogprobRow, n);
  const entries = sum(c.promptLogprobCount);
  checkLength(c, entries, 'promptLogprobIds', 'promptLogprobs', 'promptLogprobRanks');
}
