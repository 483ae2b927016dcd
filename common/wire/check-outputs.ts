// The columns of TokenOutputs and TextOutputs.
import { WireError } from '../errors.ts';
import { checkLength, checkRange, checkStarts, sumOf } from './check-columns.ts';
import { checkColumns, fillColumns, type Columns, type ColumnsOf } from './columns.ts';
import { finishReasons, textOutputsColumns, tokenOutputsColumns } from './messages.ts';

export function checkTokenOutputs(columns: Columns): ColumnsOf<typeof tokenOutputsColumns> {
  const c = fillColumns(columns, tokenOutputsColumns);
  const n = c.requestId.length;
  checkLength(c, n, 'frontendId', 'finishReason', 'stopTokenId', 'numCachedTokens');
  checkStarts('tokenStart', c.tokenStart, n, c.tokenIds.length);
  checkRange('finishReason', c.finishReason, 0, finishReasons.length);
  checkLogprobs(c, n);
  return c;
}

export function checkTextOutputs(columns: Columns): ColumnsOf<typeof textOutputsColumns> {
  const c = checkColumns(columns, textOutputsColumns);
  const n = c.requestId.length;
  checkLength(c, n, 'finishReason', 'stopTokenId', 'stopStringIndex');
  checkLength(c, n, 'numPromptTokens', 'numCachedTokens', 'numOutputTokens');
  checkStarts('textStart', c.textStart, n, c.text.length);
  checkStarts('tokenStart', c.tokenStart, n, c.tokenIds.length);
  checkRange('finishReason', c.finishReason, 0, finishReasons.length);
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
  'tokenIds' | 'logprobCount' | 'promptLogprobRow' | 'promptLogprobPosition' | 'promptLogprobCount'
>;

function checkLogprobs(c: LogprobColumns & Columns, n: number): void {
  checkLength(c, c.tokenIds.length, 'logprobCount');
  const entries = sumOf('logprobCount', c.logprobCount);
  checkLength(c, entries, 'logprobIds', 'logprobs', 'logprobRanks');
  const p = c.promptLogprobRow.length;
  checkLength(c, p, 'promptLogprobPosition', 'promptLogprobCount');
  checkRange('promptLogprobRow', c.promptLogprobRow, 0, n);
  for (let i = 1; i < p; i++) {
    const step = c.promptLogprobRow[i]! - c.promptLogprobRow[i - 1]!;
    if (step < 0) throw new WireError('column promptLogprobRow falls');
    if (step === 0 && c.promptLogprobPosition[i] !== c.promptLogprobPosition[i - 1]! + 1)
      throw new WireError('column promptLogprobPosition has a gap within a row');
  }
  const promptEntries = sumOf('promptLogprobCount', c.promptLogprobCount);
  checkLength(c, promptEntries, 'promptLogprobIds', 'promptLogprobs', 'promptLogprobRanks');
}
