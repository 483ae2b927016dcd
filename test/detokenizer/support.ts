// Shared by the detokenizer's tests: a seeded generator, tables of token bytes, and TokenOutputs
// built from readable rows.
import { fileURLToPath } from 'node:url';
import { Tokenizer } from '../../common/text/tokenizer.ts';
import { buildTokenBytes, type TokenBytes } from '../../common/text/token-bytes.ts';
import { defaultTextParams, type TextParams } from '../../common/sampling-params.ts';
import {
  finishReasons,
  type FinishReason,
  type NewTextRequest,
  type TokenOutputs,
} from '../../common/wire/messages.ts';
import type { ErrorInfo } from '../../common/errors.ts';

export const root = fileURLToPath(new URL('../../../', import.meta.url));
export const demoPath = `${root}models/demo`;

let demo: Tokenizer | null = null;
export function demoTokenizer(): Tokenizer {
  return (demo ??= Tokenizer.load(demoPath, 2048));
}

/** mulberry32: [0, n) per call. */
export function randomInts(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) % n;
  };
}

const letters = ['a', 'b', 'ab', 'ba', 'é', '€', '😀', ' ', '\n', '�'];

/**
 * A small SentencePiece-like vocabulary that makes trouble likely: single bytes, pieces of few
 * letters, spaces, and two special tokens at the end.
 */
export function smallTable(): TokenBytes {
  const bytes = Array.from(
    { length: 256 },
    (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const words = letters.flatMap((x) => [x.replaceAll(' ', '▁'), `▁${x}`]);
  const tokens = [...bytes, ...words];
  const decoder = {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  };
  return buildTokenBytes(
    { decoder, model: { vocab: tokens.map((token) => [token, 0]) } },
    [
      { id: tokens.length, content: '<s>', special: true },
      { id: tokens.length + 1, content: '</s>', special: true },
      { id: tokens.length + 2, content: '<tool>', special: false },
    ],
    'small',
  );
}

export function newRequest(
  frontendId: number,
  requestId: number,
  text: Partial<TextParams> = {},
  rest: Partial<NewTextRequest> = {},
): NewTextRequest {
  return {
    frontendId,
    requestId,
    text: { ...defaultTextParams, ...text },
    numPromptTokens: 3,
    minTokens: 0,
    logprobs: null,
    promptLogprobs: null,
    lastPromptIds: [],
    ...rest,
  };
}

export interface Row {
  readonly frontendId: number;
  readonly requestId: number;
  readonly tokenIds: readonly number[];
  readonly finish?: FinishReason;
  readonly stopTokenId?: number;
  readonly error?: ErrorInfo;
  /** Entries per token: ids of the alternatives, the token itself first. */
  readonly logprobs?: readonly (readonly number[])[];
  /** [position, ids of the alternatives] */
  readonly promptLogprobs?: readonly (readonly [number, readonly number[]])[];
}

export function tokenOutputs(
  step: number,
  newRequests: readonly NewTextRequest[],
  rows: readonly Row[],
): TokenOutputs {
  const tokenStart = [0];
  for (const row of rows) tokenStart.push(tokenStart.at(-1)! + row.tokenIds.length);
  const entries = rows.flatMap((row) =>
    row.tokenIds.map((_, i) => (row.logprobs ? row.logprobs[i]! : [])),
  );
  const prompt = rows.flatMap((row, i) =>
    (row.promptLogprobs ?? []).map(([position, ids]) => ({ row: i, position, ids })),
  );
  const ranksOf = (lists: readonly (readonly number[])[]) =>
    Int32Array.from(lists.flatMap((ids) => ids.map((_, i) => i + 1)));
  const logprobsOf = (lists: readonly (readonly number[])[]) =>
    Float32Array.from(lists.flatMap((ids) => ids.map((id) => -id / 8)));
  return {
    kind: 'tokenOutputs',
    step,
    generation: 1,
    newRequests,
    errors: rows.flatMap((row, i) => (row.error ? [{ row: i, error: row.error }] : [])),
    columns: {
      frontendId: Uint32Array.from(rows, (r) => r.frontendId),
      requestId: Uint32Array.from(rows, (r) => r.requestId),
      tokenStart: Uint32Array.from(tokenStart),
      tokenIds: Int32Array.from(rows.flatMap((r) => r.tokenIds)),
      finishReason: Uint8Array.from(rows, (r) => finishReasons.indexOf(r.finish ?? 'none')),
      stopTokenId: Int32Array.from(rows, (r) => r.stopTokenId ?? -1),
      numCachedTokens: Int32Array.from(rows, () => 1),
      logprobCount: Uint32Array.from(entries, (ids) => ids.length),
      logprobIds: Int32Array.from(entries.flat()),
      logprobs: logprobsOf(entries),
      logprobRanks: ranksOf(entries),
      promptLogprobRow: Uint32Array.from(prompt, (p) => p.row),
      promptLogprobPosition: Int32Array.from(prompt, (p) => p.position),
      promptLogprobCount: Uint32Array.from(prompt, (p) => p.ids.length),
      promptLogprobIds: Int32Array.from(prompt.flatMap((p) => p.ids)),
      promptLogprobs: logprobsOf(prompt.map((p) => p.ids)),
      promptLogprobRanks: ranksOf(prompt.map((p) => p.ids)),
    },
  };
}

export interface Expected {
  readonly text: string;
  /** Tokens up to and with the one that completed a stop string, else all. */
  readonly numTokens: number;
  /** -1 = none. */
  readonly stopStringIndex: number;
}

/**
 * What a request must come to, by other means than the code under test: TextDecoder, strings and
 * indexOf. endsByStopToken: the last token has no text.
 */
export function expectedText(
  table: TokenBytes,
  info: NewTextRequest,
  ids: readonly number[],
  endsByStopToken: boolean,
): Expected {
  const { text, minTokens } = info;
  const shown = ids.map((id, i) => {
    const hidden =
      (endsByStopToken && i === ids.length - 1) ||
      (text.skipSpecialTokens && table.special[id] === 1) ||
      id >= table.vocabSize;
    return hidden ? new Uint8Array(0) : table.bytes.slice(table.start[id], table.start[id + 1]);
  });
  if (table.stripFirstSpace) {
    const first = shown.findIndex((bytes) => bytes.length > 0);
    if (first >= 0 && shown[first]![0] === 0x20) shown[first] = shown[first]!.slice(1);
  }
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let all = '';
  for (let k = 0; k < ids.length; k++) {
    const before = all.length;
    all += decoder.decode(shown[k], { stream: true });
    if (k === ids.length - 1) all += decoder.decode();
    if (k + 1 <= minTokens) continue;
    let best = { end: Infinity, index: -1, start: 0 };
    text.stop.forEach((stop, index) => {
      const start = all.indexOf(stop, Math.max(0, before - stop.length + 1));
      if (start >= 0 && start + stop.length < best.end)
        best = { end: start + stop.length, index, start };
    });
    if (best.index >= 0)
      return {
        text: all.slice(0, text.includeStopStrInOutput ? best.end : best.start),
        numTokens: k + 1,
        stopStringIndex: best.index,
      };
  }
  return { text: all, numTokens: ids.length, stopStringIndex: -1 };
}
