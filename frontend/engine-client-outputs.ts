// From the columns of TextOutputs, checked on receipt, to RequestOutputs. Text, ids and logprobs of a
// row are cut out of the message.
import { RequestError } from '../common/errors.ts';
import { finishReasons, type TextOutputs } from '../common/wire/messages.ts';
import type { GenerateRequest, RequestOutput } from './engine-client-types.ts';
import { LogprobList, type LogprobColumns } from './logprob-list.ts';

type Columns = TextOutputs['columns'];

const noTokens = new Int32Array(0);

/** What each row took from the credit of its request: text, ids and entries of logprobs. */
export function rowCosts(c: Columns): Uint32Array {
  const costs = new Uint32Array(c.requestId.length);
  let token = 0;
  for (let row = 0; row < costs.length; row++) {
    costs[row] = c.textStart[row + 1]! - c.textStart[row]!;
    for (; token < c.tokenStart[row + 1]!; token++) costs[row]! += 4 + 12 * c.logprobCount[token]!;
  }
  for (let i = 0; i < c.promptLogprobRow.length; i++)
    costs[c.promptLogprobRow[i]!]! += 12 * c.promptLogprobCount[i]!;
  return costs;
}

/** What each row has of the message's logprobs; worked out when a row that has some is read. */
export interface MessageLogprobs {
  readonly outputs: (row: number) => LogprobList;
  readonly prompts: (row: number) => LogprobList | null;
}

export function messageLogprobs(c: Columns): MessageLogprobs {
  const outputs: LogprobColumns = {
    ids: c.logprobIds,
    logprobs: c.logprobs,
    ranks: c.logprobRanks,
    textStart: c.logprobTextStart,
    text: c.logprobText,
  };
  let starts: Uint32Array | null = null;
  let prompts: ReadonlyMap<number, LogprobList> | null = null;
  return {
    outputs: (row) => {
      starts ??= prefixSums(c.logprobCount);
      const own = starts.subarray(c.tokenStart[row], c.tokenStart[row + 1]! + 1);
      return new LogprobList(outputs, own);
    },
    prompts: (row) => {
      prompts ??= promptLogprobs(c);
      return prompts.get(row) ?? null;
    },
  };
}

/** By row; a row's positions follow one another. */
function promptLogprobs(c: Columns): ReadonlyMap<number, LogprobList> {
  const { promptLogprobRow: rows, promptLogprobPosition: positions } = c;
  const columns: LogprobColumns = {
    ids: c.promptLogprobIds,
    logprobs: c.promptLogprobs,
    ranks: c.promptLogprobRanks,
    textStart: c.promptLogprobTextStart,
    text: c.promptLogprobText,
  };
  const starts = prefixSums(c.promptLogprobCount);
  const lists = new Map<number, LogprobList>();
  for (let begin = 0, end = 0; begin < rows.length; begin = end) {
    while (rows[end] === rows[begin]) end++;
    const list = new LogprobList(columns, starts.subarray(begin, end + 1), positions[begin]);
    lists.set(rows[begin]!, list);
  }
  return lists;
}

/** [n + 1] */
function prefixSums(counts: Uint32Array): Uint32Array {
  const sums = new Uint32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) sums[i + 1] = sums[i]! + counts[i]!;
  return sums;
}

/** Everything of one row; `index` is the choice that it belongs to. */
export function rowOutput(
  message: TextOutputs,
  c: Columns,
  row: number,
  index: number,
  request: GenerateRequest,
  logprobs: MessageLogprobs,
  creditBytes: number,
): RequestOutput {
  const tokenIds = c.tokenIds.subarray(c.tokenStart[row], c.tokenStart[row + 1]);
  const finishReason = finishReasons[c.finishReason[row]!]!;
  const wantsLogprobs = request.sampling.logprobs !== null;
  const wantsPrompt = request.sampling.promptLogprobs !== null;
  const wantsIds = wantsLogprobs || request.text.returnTokenIds;
  return {
    index,
    text: rowText(c, row),
    tokenIds: wantsIds ? tokenIds : noTokens,
    logprobs: wantsLogprobs ? logprobs.outputs(row) : null,
    promptLogprobs: wantsPrompt ? logprobs.prompts(row) : null,
    finishReason,
    stopReason: finishReason === 'repetition' ? 'repetition_detected' : stopReason(c, row, request),
    error: finishReason === 'error' ? rowError(message, row) : null,
    numPromptTokens: c.numPromptTokens[row]!,
    numCachedTokens: c.numCachedTokens[row]!,
    numOutputTokens: c.numOutputTokens[row]!,
    creditBytes,
  };
}

/** The end of a choice that the server can no longer end: its peer is gone. */
export function lostOutput(
  index: number,
  error: RequestError,
  last: RequestOutput | null,
  numPromptTokens: number,
): RequestOutput {
  return {
    index,
    text: '',
    tokenIds: noTokens,
    logprobs: null,
    promptLogprobs: null,
    finishReason: 'error',
    stopReason: null,
    error,
    numPromptTokens,
    numCachedTokens: last?.numCachedTokens ?? 0,
    numOutputTokens: last?.numOutputTokens ?? 0,
    creditBytes: 0,
  };
}

function rowText({ text, textStart }: Columns, row: number): string {
  const numBytes = textStart[row + 1]! - textStart[row]!;
  if (numBytes === 0) return '';
  return Buffer.from(text.buffer, text.byteOffset + textStart[row]!, numBytes).toString('utf8');
}

/** As in vLLM: a stop string, or an id of stop_token_ids; the model's own EOS is null. */
function stopReason(c: Columns, row: number, request: GenerateRequest) {
  const stop = request.text.stop[c.stopStringIndex[row]!];
  if (stop !== undefined) return stop;
  const id = c.stopTokenId[row]!;
  return request.sampling.stopTokenIds.includes(id) ? id : null;
}

function rowError(message: TextOutputs, row: number): RequestError {
  const found = message.errors.find((entry) => entry.row === row);
  if (found) return RequestError.from(found.error);
  return new RequestError('internal', 'the request ended with an error that was not named');
}
