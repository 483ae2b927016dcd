// Steps with one bad value each, and what a native backend says of it. They suit a backend of 40 rows
// of up to 512 tokens, 64 blocks of 16 and 100 token ids.
import { stepFlags, type StepInputColumns } from '../../../common/wire/step.ts';
import { stepColumns, type NewRow } from './harness.ts';

export const row: NewRow = {
  row: 1,
  tokens: [1, 2, 3, 4],
  params: { temperature: 0, badWords: [[5, 6]], logitBias: { ids: [1], values: [1] } },
  stopIds: [9],
  blocks: [1],
};
export const scheduled = [{ row: 1, start: 0, count: 4, flags: stepFlags.sample }];

type Change = Partial<Record<keyof StepInputColumns, readonly number[]>>;
/** [what the error says, how the step differs from one that fills and schedules `row`] */
export const badSteps: readonly [RegExp, Change][] = [
  [/newRow: row -1 of 40/, { newRow: [-1] }],
  [/newRow: row 40 of 40/, { newRow: [40] }],
  [/newNumTokens has 0 elements/, { newNumTokens: [] }],
  [/newNumTokens: 0 tokens/, { newNumTokens: [0] }],
  [/newNumTokens: 513 tokens/, { newNumTokens: [513] }],
  [/newTokenIds is shorter/, { newTokenIds: [1, 2, 3] }],
  [/newTokenIds has 1 elements too many/, { newTokenIds: [1, 2, 3, 4, 5] }],
  [/newTokenIds: id 100 of 100/, { newTokenIds: [1, 2, 3, 100] }],
  [/newTokenIds: id -1 of 100/, { newTokenIds: [-1, 2, 3, 4] }],
  [/newNumPromptTokens: 5 of 4/, { newNumPromptTokens: [5] }],
  [/newTemperature is not finite/, { newTemperature: [NaN] }],
  [/newTemperature is negative/, { newTemperature: [-1] }],
  [/newRepetitionPenalty is not positive/, { newRepetitionPenalty: [0] }],
  [/newNumLogprobs is above \d+/, { newNumLogprobs: [1 << 30] }],
  [/newNumPromptLogprobs is above \d+/, { newNumPromptLogprobs: [1 << 30] }],
  [
    /newNumLogprobIds is above 128/,
    { newNumLogprobIds: [129], logprobIds: Array.from({ length: 129 }, () => 1) },
  ],
  [/column logprobIds: id -1 of/, { newNumLogprobIds: [1], logprobIds: [-1] }],
  [/column logprobIds: id 100 of 100/, { newNumLogprobIds: [1], logprobIds: [100] }],
  [/column logprobIds has 1 elements too many/, { logprobIds: [1] }],
  [/column logprobIds is shorter/, { newNumLogprobIds: [2], logprobIds: [1] }],
  [/newNumStopIds is negative/, { newNumStopIds: [-1] }],
  [/stopIds is shorter/, { newNumStopIds: [1000000000] }],
  [/stopIds has 1 elements too many/, { stopIds: [9, 9] }],
  [/logitBiasIds has 1 elements too many/, { logitBiasIds: [1, 2] }],
  [/column logitBias has 1 elements too many/, { logitBias: [1, 2] }],
  [/column logitBias is shorter/, { logitBias: [] }],
  [/allowedIds has 1 elements too many/, { allowedIds: [1] }],
  [/badWordLength has 1 elements too many/, { badWordLength: [2, 1] }],
  [/badWordIds has 1 elements too many/, { badWordIds: [5, 6, 7] }],
  [/badWordLength: a word of 0 ids/, { badWordLength: [0] }],
  [/badWordIds is shorter/, { badWordLength: [3] }],
  [/blockRow, blockIndex and blockId differ/, { blockId: [] }],
  [/blockRow: row 40 of 40/, { blockRow: [40] }],
  [/blockRow: row 2 is empty/, { blockRow: [2] }],
  [/blockIndex: entry 32 of 32/, { blockIndex: [32] }],
  [/blockId: block 64 of 64/, { blockId: [64] }],
  [/blockId: row 1 has no block 0/, { blockId: [0] }],
  [/row, start, count and flags differ/, { flags: [] }],
  [/column row: row 40 of 40/, { row: [40] }],
  [/column row: row 3 is empty/, { row: [3] }],
  [/count: 0 tokens/, { count: [0] }],
  [/count: tokens to 5, row 1 knows 4/, { count: [5] }],
  [/start: 4 tokens from position -1/, { start: [-1] }],
  [/start: 4 tokens from position 509/, { start: [509] }],
  [/flags: row 1 samples at 3, it knows 4/, { count: [3] }],
];

/** The columns of a bad step. */
export function badColumns(change: Change): StepInputColumns {
  const columns: Record<string, unknown> = { ...stepColumns([row], scheduled) };
  for (const [name, values] of Object.entries(change)) {
    const Type = (columns[name] as Int32Array).constructor as Int32ArrayConstructor;
    columns[name] = Type.from(values);
  }
  return columns as unknown as StepInputColumns;
}
