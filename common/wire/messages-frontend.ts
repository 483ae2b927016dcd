// The public links: a frontend with the engine and with the detokenizer. docs/protocol.md specifies
// them byte for byte; they change only with protocolVersion. Ids are unsigned 32-bit; a request is
// (frontendId, requestId).
import type { ErrorInfo } from '../errors.ts';
import type { RequestLimits } from '../limits.ts';
import type { DefaultSampling, SamplingParams, TextParams } from '../sampling-params.ts';
import type { ColumnSpec, ColumnsOf } from './columns.ts';
import type { Hello, PeerLost, PeerReady, Refused } from './messages-common.ts';

// ---------------------------------------------------------------- frontend -> engine

export const addRequestColumns = { promptTokenIds: 'i32' } as const satisfies ColumnSpec;

/** Adds n requests (requestId .. requestId + n - 1) that share a prompt: all are taken or none. */
export interface AddRequest {
  readonly kind: 'addRequest';
  readonly requestId: number;
  readonly n: number;
  readonly sampling: SamplingParams;
  readonly text: TextParams;
  /** Lower is sooner; 0 unless the policy is priority. */
  readonly priority: number;
  /** Isolates the prefix cache; null shares it. */
  readonly cacheSalt: string | null;
  readonly columns: ColumnsOf<typeof addRequestColumns>;
}

export const abortColumns = { requestId: 'u32' } as const satisfies ColumnSpec;

/** Ids that are unknown or ended are ignored. Each open one still gets its terminal message. */
export interface Abort {
  readonly kind: 'abort';
  readonly columns: ColumnsOf<typeof abortColumns>;
}

/** A call to the engine: stats, memory, timeline, resetPrefixCache. */
export interface Utility {
  readonly kind: 'utility';
  readonly callId: number;
  readonly method: string;
  readonly args: Readonly<Record<string, unknown>>;
}

export type FrontendToEngine = Hello | AddRequest | Abort | Utility;

// ---------------------------------------------------------------- engine -> frontend

export interface EngineWelcome {
  readonly kind: 'welcome';
  readonly protocol: number;
  readonly frontendId: number;
  /** Shown to the detokenizer with Attach, so that nobody attaches as somebody else. */
  readonly attachKey: string;
  readonly generation: number;
  readonly model: string;
  /** What runs it, for people: "cuda (NVIDIA H100 80GB HBM3)". */
  readonly device: string;
  readonly vocabSize: number;
  readonly maxModelLen: number;
  /** Alternatives that a request may ask for; vocabSize = no bound. */
  readonly maxLogprobs: number;
  readonly maxNumSeqs: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly eosTokenIds: readonly number[];
  readonly priorityScheduling: boolean;
  /** What one request may ask for. */
  readonly limits: RequestLimits;
  /** What the model's generation_config (or the operator) says instead of defaultSamplingParams. */
  readonly defaultSampling: DefaultSampling;
}

/** All n requests are queued; each now ends in exactly one terminal TextOutputs row. */
export interface Accepted {
  readonly kind: 'accepted';
  readonly requestId: number;
  readonly n: number;
}

/** None of the n requests exists; nothing else follows for them. */
export interface Rejected {
  readonly kind: 'rejected';
  readonly requestId: number;
  readonly n: number;
  readonly error: ErrorInfo;
}

export interface UtilityReply {
  readonly kind: 'utilityReply';
  readonly callId: number;
  readonly result: unknown;
  readonly error: ErrorInfo | null;
}

/** How many values were at most bounds[i] and above bounds[i - 1]; the last count is of the rest. */
export interface HistogramCounts {
  readonly bounds: readonly number[];
  /** [bounds.length + 1] */
  readonly counts: readonly number[];
  readonly sum: number;
}

/** Every 250 ms while there is work, and once when it ends. Counters count from start. */
export interface EngineStatus {
  readonly kind: 'status';
  readonly step: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  /** [0, 1] */
  readonly kvCacheUsage: number;
  readonly numPreemptions: number;
  readonly promptTokens: number;
  readonly generationTokens: number;
  readonly prefixCacheQueries: number;
  readonly prefixCacheHits: number;
  /** Time in which the device of rank 0 ran steps, and in which it waited though there was work. */
  readonly deviceBusyMs: number;
  readonly deviceIdleMs: number;
  /** Of promptTokens, those that were found in the prefix cache. */
  readonly cachedPromptTokens: number;
  /** Requests that ended because the model's logits were not numbers. */
  readonly numInvalidLogits: number;
  /** Times (s) and sizes, by name: see docs/protocol.md. */
  readonly histograms: Readonly<Record<string, HistogramCounts>>;
  /** Work is pending but no step has ended for this long; 0 when idle or advancing. */
  readonly stalledMs: number;
}

export type EngineToFrontend =
  | EngineWelcome
  | Refused
  | Accepted
  | Rejected
  | UtilityReply
  | EngineStatus
  | PeerLost
  | PeerReady;

// ---------------------------------------------------------------- frontend -> detokenizer

/** Answered by Attached once the engine has introduced the frontend; they may arrive in any order. */
export interface Attach {
  readonly kind: 'attach';
  readonly frontendId: number;
  readonly attachKey: string;
  /** Credit for this frontend in all: bytes that may be on their way to it. */
  readonly creditBytes: number;
}

export const creditColumns = { requestId: 'u32', bytes: 'u32' } as const satisfies ColumnSpec;

/**
 * Grants more: `bytes` for the frontend in all, and per request in the columns. A row of TextOutputs
 * costs its bytes of text, 4 for each id and 12 for each entry of logprobs, from both accounts. A
 * grant for an ended request counts in all only.
 */
export interface Credit {
  readonly kind: 'credit';
  readonly bytes: number;
  readonly columns: ColumnsOf<typeof creditColumns>;
}

/** Text services for frontends without a tokenizer. Each has one TextReply. */
export interface Tokenize {
  readonly kind: 'tokenize';
  readonly callId: number;
  readonly text: string;
  readonly addSpecialTokens: boolean;
  /** Special tokens that are written out in the text become tokens; absent or nil = they stay text. */
  readonly allowSpecialTokens?: boolean | null;
}

export interface ChatMessageOnWire {
  readonly role: string;
  readonly content: string;
  /** Who of this role it is; absent or nil where nobody says. */
  readonly name?: string | null;
}

export interface ApplyChatTemplate {
  readonly kind: 'applyChatTemplate';
  readonly callId: number;
  readonly messages: readonly ChatMessageOnWire[];
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage: boolean;
  /** The model's own frame around what the template gives. */
  readonly addSpecialTokens: boolean;
  /** Variables for the template beside messages and the flags above. */
  readonly templateArgs: Readonly<Record<string, unknown>>;
}

export const detokenizeColumns = { tokenIds: 'i32' } as const satisfies ColumnSpec;

export interface Detokenize {
  readonly kind: 'detokenize';
  readonly callId: number;
  readonly skipSpecialTokens: boolean;
  readonly columns: ColumnsOf<typeof detokenizeColumns>;
}

export type FrontendToDetokenizer =
  Hello | Attach | Credit | Tokenize | ApplyChatTemplate | Detokenize;

// ---------------------------------------------------------------- detokenizer -> frontend

export interface DetokenizerWelcome {
  readonly kind: 'welcome';
  readonly protocol: number;
  readonly generation: number;
}

export interface Attached {
  readonly kind: 'attached';
  readonly frontendId: number;
}

/**
 * Text of one step for one frontend, a row per request. Text is UTF-8; a delta never ends inside a
 * character. Logprob entries carry their token's bytes (which may be part of a character).
 */
export const textOutputsColumns = {
  /** [n] */
  requestId: 'u32',
  /** [n + 1] row i has text[textStart[i] .. textStart[i + 1]) */
  textStart: 'u32',
  text: 'u8',
  /** [n + 1] ids of tokens new in this row; empty unless returnTokenIds or logprobs */
  tokenStart: 'u32',
  tokenIds: 'i32',
  /** [n] index into finishReasons; not 0 is the request's terminal message */
  finishReason: 'u8',
  /** [n] -1 = none; index into the request's stop strings */
  stopTokenId: 'i32',
  stopStringIndex: 'i32',
  /** [n] usage so far */
  numPromptTokens: 'i32',
  numCachedTokens: 'i32',
  numOutputTokens: 'i32',
  /** [numTokens] entries of each token in tokenIds; 0 = none */
  logprobCount: 'u32',
  logprobIds: 'i32',
  logprobs: 'f32',
  logprobRanks: 'i32',
  /** [numEntries + 1] bytes of each entry's token */
  logprobTextStart: 'u32',
  logprobText: 'u8',
  /** [p] row index into n, position in the prompt, entries; as above */
  promptLogprobRow: 'u32',
  promptLogprobPosition: 'i32',
  promptLogprobCount: 'u32',
  promptLogprobIds: 'i32',
  promptLogprobs: 'f32',
  promptLogprobRanks: 'i32',
  promptLogprobTextStart: 'u32',
  promptLogprobText: 'u8',
} as const satisfies ColumnSpec;

export interface TextOutputs {
  readonly kind: 'textOutputs';
  readonly step: number;
  readonly generation: number;
  readonly errors: readonly { readonly row: number; readonly error: ErrorInfo }[];
  readonly columns: ColumnsOf<typeof textOutputsColumns>;
}

export const textReplyColumns = { tokenIds: 'i32' } as const satisfies ColumnSpec;

export interface TextReply {
  readonly kind: 'textReply';
  readonly callId: number;
  /** Rendered or decoded text; null for tokenize and on an error. */
  readonly text: string | null;
  readonly error: ErrorInfo | null;
  /** tokenize and applyChatTemplate: the ids. */
  readonly columns: ColumnsOf<typeof textReplyColumns>;
}

export type DetokenizerToFrontend =
  DetokenizerWelcome | Refused | Attached | TextOutputs | TextReply | PeerLost;
