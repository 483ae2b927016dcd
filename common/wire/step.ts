// The step's columns, between engine and worker and, in the same order, down to the native
// backend: a column is known there by its index in these tables. kernels/step.h mirrors them and a
// test compares the two. n = rows scheduled in the step, m = rows that are new in it, b = block
// table entries that are new in it.
import type { ColumnSpec, ColumnsOf } from './columns.ts';

/** Ids whose logprobs one request may name (logprob_token_ids). */
export const maxLogprobIds = 128;

/** StepInput: row changes first (applied just before the step executes), then the scheduled rows. */
export const stepInputColumns = {
  /** [m] row to fill; its former content is forgotten. A resumed request is a new row too. */
  newRow: 'i32',
  /** [m] tokens known so far (prompt and outputs). */
  newNumTokens: 'i32',
  /** [m] of these, the original prompt: penalties, min_tokens and logprobs count from here. */
  newNumPromptTokens: 'i32',
  /** [sum(newNumTokens)] their ids, row after row. */
  newTokenIds: 'i32',
  /** [m] 0 = greedy. */
  newTemperature: 'f32',
  /** [m] (0, 1]; 1 = off. */
  newTopP: 'f32',
  /** [m] 0 = off. */
  newTopK: 'i32',
  /** [m] [0, 1]; 0 = off. */
  newMinP: 'f32',
  newPresencePenalty: 'f32',
  newFrequencyPenalty: 'f32',
  /** [m] 1 = off. */
  newRepetitionPenalty: 'f32',
  /** [m] key of the noise generator. */
  newSeed: 'u64',
  /** [m] stop ids are masked until this many tokens were generated. */
  newMinTokens: 'i32',
  /** [m] the request is at its end by length when it knows this many tokens (prompt included). */
  newMaxNumTokens: 'i32',
  /** [m] -1 = none, else how many alternatives with each sampled token. */
  newNumLogprobs: 'i32',
  /** [m] -1 = none, else alternatives with each prompt token from the second on. */
  newNumPromptLogprobs: 'i32',
  /** [m] entries of logprobIds (at most maxLogprobIds): they take the place of the best ids. */
  newNumLogprobIds: 'i32',
  logprobIds: 'i32',
  /** [m] how many of stopIds belong to the row: EOS (unless ignored) and stop_token_ids. */
  newNumStopIds: 'i32',
  stopIds: 'i32',
  /** [m] entries of logitBiasIds and logitBias. */
  newNumLogitBias: 'i32',
  logitBiasIds: 'i32',
  logitBias: 'f32',
  /** [m] entries of allowedIds; 0 = every id is allowed. */
  newNumAllowedIds: 'i32',
  allowedIds: 'i32',
  /** [m] bad words of the row; each has badWordLength ids in badWordIds. */
  newNumBadWords: 'i32',
  badWordLength: 'i32',
  badWordIds: 'i32',
  /** [b] block table entries: blockTable[row][index] = id. */
  blockRow: 'i32',
  blockIndex: 'i32',
  blockId: 'i32',
  /** [n] rows of the step in batch order; StepOutput follows it. */
  row: 'i32',
  /** [n] numComputedTokens before the step: position of the row's first token in it. */
  start: 'i32',
  /** [n] numScheduledTokens: more than one in prefill, one in decode. */
  count: 'i32',
  /** [n] bit set of stepFlags. */
  flags: 'i32',
} as const satisfies ColumnSpec;

export type StepInputColumns = ColumnsOf<typeof stepInputColumns>;

export const stepFlags = {
  /** The chunk reaches numTokens: logits of its last token are sampled and the token is appended. */
  sample: 1,
  /** Logprobs of the prompt tokens of this chunk are returned. */
  promptLogprobs: 2,
} as const;

/** StepOutput, in StepInput's row order. r, p = rows, prompt tokens that asked for logprobs. */
export const stepOutputColumns = {
  /** [n] sampled id, -1 where the row did not sample. */
  tokenId: 'i32',
  /** [n] bit set of rowFlags. */
  rowFlags: 'u8',
  /** [r] index into the batch of each row that has logprobs of its sampled token. */
  logprobIndex: 'i32',
  /** [r] raw logprob (natural log) and 1-based rank of the sampled token. */
  logprob: 'f32',
  logprobRank: 'i32',
  /** [r] alternatives of each. */
  topCount: 'i32',
  /** [sum(topCount)] best ids first, ties to the lower id, or the row's logprobIds as they came. */
  topIds: 'i32',
  topLogprobs: 'f32',
  /** [p] index into the batch and position in the prompt of each prompt token with logprobs. */
  promptLogprobIndex: 'i32',
  promptLogprobPosition: 'i32',
  /** [p] raw logprob and rank of the prompt token at that position, given those before it. */
  promptLogprob: 'f32',
  promptLogprobRank: 'i32',
  /** [p] alternatives of each; [sum(promptTopCount)] the best ids and their raw logprobs. */
  promptTopCount: 'i32',
  promptTopIds: 'i32',
  promptTopLogprobs: 'f32',
} as const satisfies ColumnSpec;

export type StepOutputColumns = ColumnsOf<typeof stepOutputColumns>;

export const rowFlags = {
  /** The row's logits held a NaN: nothing was sampled, the request ends with invalid_logits. */
  nan: 1,
} as const;
