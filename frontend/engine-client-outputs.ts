// From the columns of TextOutputs, checked on receipt, to RequestOutputs. Text and ids of a row are
// cut out of the message; objects for logprobs are made only for rows that have some.
import { RequestError } from '../common/errors.ts';
import { finishReasons, type TextOutputs } from '../common/wire/messages.ts';
import type { GenerateRequest, RequestOutput, TokenLogprobs } from './engine-client-types.ts';

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

/** Where the row's logprob entries begin in the message; [n + 1]. Null if the message has none. */
export function logprobEntryStarts(c: Columns): Uint32Array | null {
  if (c.logprobIds.length === 0) return null;
  const n = c.requestId.length;
  const starts = new Uint32Array(n + 1);
  let entry = 0;
  for (let row = 0; row < n; row++) {
    for (let k = c.tokenStart[row]!; k < c.tokenStart[row + 1]!; k++) entry += c.logprobCount[k]!;
    starts[row + 1] = entry;
  }
  return starts;
}

/** Row -> position in the prompt -> logprobs. Null if the message has none. */
export function promptLogprobsByRow(c: Columns) {
  if (c.promptLogprobRow.length === 0) return null;
  const rows = new Map<number, Map<number, TokenLogprobs>>();
  let entry = 0;
  for (let i = 0; i < c.promptLogprobRow.length; i++) {
    const row = c.promptLogprobRow[i]!;
    const end = entry + c.promptLogprobCount[i]!;
    const positions = rows.get(row) ?? new Map<number, TokenLogprobs>();
    rows.set(row, positions);
    const text = [c.promptLogprobText, c.promptLogprobTextStart] as const;
    const numbers = {
      ids: c.promptLogprobIds.subarray(entry, end),
      logprobs: c.promptLogprobs.subarray(entry, end),
      ranks: c.promptLogprobRanks.subarray(entry, end),
    };
    positions.set(c.promptLogprobPosition[i]!, withBytes(numbers, ...text, entry, end));
    entry = end;
  }
  return rows;
}

/** Everything of one row; `index` is the choice that it belongs to. */
export function rowOutput(
  message: TextOutputs,
  c: Columns,
  row: number,
  index: number,
  request: GenerateRequest,
  logprobStarts: Uint32Array | null,
  promptLogprobs: ReturnType<typeof promptLogprobsByRow>,
  creditBytes: number,
): RequestOutput {
  const tokenIds = c.tokenIds.subarray(c.tokenStart[row], c.tokenStart[row + 1]);
  const finishReason = finishReasons[c.finishReason[row]!]!;
  const wantsLogprobs = request.sampling.logprobs !== null;
  const wantsIds = wantsLogprobs || request.text.returnTokenIds;
  return {
    index,
    text: rowText(c, row),
    tokenIds: wantsIds ? tokenIds : noTokens,
    logprobs: wantsLogprobs ? rowLogprobs(c, row, logprobStarts) : null,
    promptLogprobs: promptLogprobs?.get(row) ?? null,
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

function rowLogprobs(c: Columns, row: number, starts: Uint32Array | null): TokenLogprobs[] {
  const out: TokenLogprobs[] = [];
  if (!starts) return out;
  let entry = starts[row]!;
  for (let k = c.tokenStart[row]!; k < c.tokenStart[row + 1]!; k++) {
    const end = entry + c.logprobCount[k]!;
    const numbers = {
      ids: c.logprobIds.subarray(entry, end),
      logprobs: c.logprobs.subarray(entry, end),
      ranks: c.logprobRanks.subarray(entry, end),
    };
    out.push(withBytes(numbers, c.logprobText, c.logprobTextStart, entry, end));
    entry = end;
  }
  return out;
}

/** The entries' texts are cut when somebody looks at them: a long prompt has millions. */
function withBytes(
  numbers: Omit<TokenLogprobs, 'bytes'>,
  text: Uint8Array,
  starts: Uint32Array,
  from: number,
  to: number,
): TokenLogprobs {
  let bytes: readonly Uint8Array[] | null = null;
  return {
    ...numbers,
    get bytes() {
      bytes ??= Array.from({ length: to - from }, (_, i) =>
        text.subarray(starts[from + i], starts[from + i + 1]),
      );
      return bytes;
    },
  };
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
