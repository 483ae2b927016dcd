// The columns of StepInput and StepOutput. Sums of counts are checked against the columns that they
// cut up, and rows against the table; what the rows mean is the scheduler's and the worker's.
import { WireError } from '../errors.ts';
import { checkLength, checkRange, sumOf } from './check-columns.ts';
import { fillColumns, type Columns } from './columns.ts';
import {
  maxLogprobIds,
  stepInputColumns,
  stepOutputColumns,
  type StepInputColumns,
  type StepOutputColumns,
} from './step.ts';

/** [m] each. */
const columnsOfNewRows = Object.keys(stepInputColumns).filter(
  (name) => name.startsWith('new') && name !== 'newTokenIds',
);

/** numTokens is the header's; maxNumSeqs the number of rows of the receiver's table. */
export function checkStepInput(
  columns: Columns,
  numTokens: number,
  maxNumSeqs = 2 ** 31,
): StepInputColumns {
  const c = fillColumns(columns, stepInputColumns);
  const m = c.newRow.length;
  checkLength(c, m, ...columnsOfNewRows);
  checkRange('newRow', c.newRow, 0, maxNumSeqs);
  checkLength(c, sumOf('newNumTokens', c.newNumTokens), 'newTokenIds');
  checkLength(c, sumOf('newNumStopIds', c.newNumStopIds), 'stopIds');
  checkLength(c, sumOf('newNumLogitBias', c.newNumLogitBias), 'logitBiasIds', 'logitBias');
  checkLength(c, sumOf('newNumAllowedIds', c.newNumAllowedIds), 'allowedIds');
  checkLength(c, sumOf('newNumBadWords', c.newNumBadWords), 'badWordLength');
  checkLength(c, sumOf('badWordLength', c.badWordLength), 'badWordIds');
  checkRange('newNumLogprobs', c.newNumLogprobs, -1, 2 ** 31);
  checkRange('newNumPromptLogprobs', c.newNumPromptLogprobs, -1, 2 ** 31);
  checkRange('newNumLogprobIds', c.newNumLogprobIds, 0, maxLogprobIds + 1);
  checkLength(c, sumOf('newNumLogprobIds', c.newNumLogprobIds), 'logprobIds');
  checkLength(c, c.blockRow.length, 'blockIndex', 'blockId');
  checkRange('blockRow', c.blockRow, 0, maxNumSeqs);
  checkRange('blockIndex', c.blockIndex, 0, 2 ** 31);
  checkRange('blockId', c.blockId, 0, 2 ** 31);
  const n = c.row.length;
  checkLength(c, n, 'start', 'count', 'flags');
  checkRange('row', c.row, 0, maxNumSeqs);
  checkRange('start', c.start, 0, 2 ** 31);
  checkRange('count', c.count, 1, 2 ** 31);
  if (sumOf('count', c.count) !== numTokens)
    throw new WireError(`column count does not add up to numTokens ${numTokens}`);
  return c;
}

/** n is the number of rows of the step that this answers. */
export function checkStepOutput(
  columns: Columns,
  n = columns['tokenId']?.length ?? 0,
): StepOutputColumns {
  const c = fillColumns(columns, stepOutputColumns);
  checkLength(c, n, 'tokenId', 'rowFlags');
  const r = c.logprobIndex.length;
  checkLength(c, r, 'logprob', 'logprobRank', 'topCount');
  checkLength(c, sumOf('topCount', c.topCount), 'topIds', 'topLogprobs');
  checkRange('logprobIndex', c.logprobIndex, 0, n);
  const p = c.promptLogprobIndex.length;
  checkLength(c, p, 'promptLogprobPosition', 'promptLogprob', 'promptLogprobRank');
  checkLength(c, p, 'promptTopCount');
  const numPromptTop = sumOf('promptTopCount', c.promptTopCount);
  checkLength(c, numPromptTop, 'promptTopIds', 'promptTopLogprobs');
  checkRange('promptLogprobIndex', c.promptLogprobIndex, 0, n);
  return c;
}
