// Every message, one tagged union per link and direction, named by its two ends. docs/protocol.md
// specifies the same byte for byte. Ids are unsigned 32-bit; a request is (frontendId, requestId).
import type { ErrorInfo } from '../errors.ts';
import type { DefaultSampling, SamplingParams, TextParams } from '../sampling-params.ts';
import type { ColumnSpec, ColumnsOf } from './columns.ts';
import type { StepInputColumns, StepOutputColumns } from './step.ts';

export const protocolVersion = 1;

export type Role = 'supervisor' | 'frontend' | 'engine' | 'worker' | 'detokenizer';

/** First message on every link, from the DEALER; repeated after a reconnect. */
export interface Hello {
  readonly kind: 'hello';
  readonly protocol: number;
  /** Per-boot secret (hex); from the environment of our own processes or from frontend.json. */
  readonly token: string;
  readonly role: Role | 'client';
  /** Index among processes of the role; rank for a worker. 0 for a foreign frontend. */
  readonly index: number;
  readonly generation: number;
  /** Hash of the build between our own processes, null from a foreign frontend. */
  readonly build: string | null;
  readonly pid: number;
}

/** Answer to a Hello that is refused; the peer closes. */
export interface Refused {
  readonly kind: 'refused';
  readonly message: string;
  readonly protocol: number;
  readonly build: string | null;
}

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
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly maxLogprobs: number;
  readonly maxNumSeqs: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly eosTokenIds: readonly number[];
  readonly priorityScheduling: boolean;
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
  /** Work is pending but no step has ended for this long; 0 when idle or advancing. */
  readonly stalledMs: number;
}

/** A peer of the server is gone; open requests that needed it get their terminal message. */
export interface PeerLost {
  readonly kind: 'peerLost';
  readonly role: Role;
  readonly index: number;
  readonly generation: number;
}

/**
 * A replaced process serves under its new generation and addresses. From the supervisor to all, and
 * passed on by the engine to its frontends when it is the detokenizer.
 */
export interface PeerReady {
  readonly kind: 'peerReady';
  readonly role: Role;
  readonly index: number;
  readonly generation: number;
  /** Where it binds, by who connects: `frontend`, `engine`, `worker`. */
  readonly addresses: Readonly<Record<string, string>>;
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

// ---------------------------------------------------------------- engine -> detokenizer

/** A frontend was welcomed; only with this key may it Attach. */
export interface FrontendJoined {
  readonly kind: 'frontendJoined';
  readonly frontendId: number;
  readonly attachKey: string;
}

export interface FrontendLeft {
  readonly kind: 'frontendLeft';
  readonly frontendId: number;
}

/** Text settings of a request that this message names for the first time. */
export interface NewTextRequest {
  readonly frontendId: number;
  readonly requestId: number;
  readonly text: TextParams;
  readonly numPromptTokens: number;
  readonly minTokens: number;
  /** Alternatives to render per token; null = none. */
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
  /** Up to 16 last ids of the prompt: context for the first decoded token. */
  readonly lastPromptIds: readonly number[];
}

export const finishReasons = ['none', 'stop', 'length', 'abort', 'error'] as const;
export type FinishReason = (typeof finishReasons)[number];

/**
 * Tokens of one step, a row per request. Logprob entries: token k of the message has
 * logprobCount[k] entries, the sampled token first, then the best ones; likewise prompt logprobs.
 */
export const tokenOutputsColumns = {
  /** [n] */
  frontendId: 'u32',
  requestId: 'u32',
  /** [n + 1] row i has tokenIds[tokenStart[i] .. tokenStart[i + 1]) */
  tokenStart: 'u32',
  tokenIds: 'i32',
  /** [n] index into finishReasons; not 0 ends the request */
  finishReason: 'u8',
  /** [n] the id that stopped it, -1 = none; it is the row's last token and has no text */
  stopTokenId: 'i32',
  /** [n] prompt tokens that were found in the prefix cache */
  numCachedTokens: 'i32',
  /** [numTokens] 0 = none */
  logprobCount: 'u8',
  logprobIds: 'i32',
  logprobs: 'f32',
  logprobRanks: 'i32',
  /** [p] row index into n, position in the prompt, and entries of each prompt token */
  promptLogprobRow: 'u32',
  promptLogprobPosition: 'i32',
  promptLogprobCount: 'u8',
  promptLogprobIds: 'i32',
  promptLogprobs: 'f32',
  promptLogprobRanks: 'i32',
} as const satisfies ColumnSpec;

export interface TokenOutputs {
  readonly kind: 'tokenOutputs';
  /** Acknowledged by number; the engine stops scheduling above 64 unacknowledged. */
  readonly step: number;
  readonly generation: number;
  readonly newRequests: readonly NewTextRequest[];
  /** Why rows ended with 'error', by row index; the rest have none. */
  readonly errors: readonly { readonly row: number; readonly error: ErrorInfo }[];
  readonly columns: ColumnsOf<typeof tokenOutputsColumns>;
}

export type EngineToDetokenizer = Hello | FrontendJoined | FrontendLeft | TokenOutputs;

// ---------------------------------------------------------------- detokenizer -> engine

export const stopRequestColumns = {
  frontendId: 'u32',
  requestId: 'u32',
  /** [n] output tokens up to and with the one that completed the match (or met the slow reader). */
  numOutputTokens: 'u32',
} as const satisfies ColumnSpec;

/** The detokenizer has ended these requests itself (stop string, slow_reader); it sent the terminal message. */
export interface StopRequest {
  readonly kind: 'stopRequest';
  readonly columns: ColumnsOf<typeof stopRequestColumns>;
}

export interface Ack {
  readonly kind: 'ack';
  /** Every TokenOutputs up to this one was handled. */
  readonly step: number;
}

export interface DetokenizerWelcome {
  readonly kind: 'welcome';
  readonly protocol: number;
  readonly generation: number;
}

export type DetokenizerToEngine = DetokenizerWelcome | Refused | StopRequest | Ack;

// ---------------------------------------------------------------- frontend -> detokenizer

/** Answered by Attached once the engine has introduced the frontend; they may arrive in any order. */
export interface Attach {
  readonly kind: 'attach';
  readonly frontendId: number;
  readonly attachKey: string;
  /** Credit for this frontend in all: bytes of text that may be on their way to it. */
  readonly creditBytes: number;
}

export const creditColumns = { requestId: 'u32', bytes: 'u32' } as const satisfies ColumnSpec;

/**
 * Grants more: `bytes` for the frontend in all, and per request in the columns. A row of TextOutputs
 * costs its bytes of text, from both accounts (ids and logprobs cost nothing of their own). A grant
 * for an ended request counts in all only.
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
}

export interface ApplyChatTemplate {
  readonly kind: 'applyChatTemplate';
  readonly callId: number;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage: boolean;
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
  logprobCount: 'u8',
  logprobIds: 'i32',
  logprobs: 'f32',
  logprobRanks: 'i32',
  /** [numEntries + 1] bytes of each entry's token */
  logprobTextStart: 'u32',
  logprobText: 'u8',
  /** [p] row index into n, position in the prompt, entries; as above */
  promptLogprobRow: 'u32',
  promptLogprobPosition: 'i32',
  promptLogprobCount: 'u8',
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

// ---------------------------------------------------------------- worker -> engine

/** Sent after Welcome, when weights are loaded and the KV cache is allocated. */
export interface WorkerReady {
  readonly kind: 'workerReady';
  readonly rank: number;
  readonly generation: number;
  readonly device: string;
  readonly dtype: string;
  readonly kvCacheDtype: string;
  readonly numBlocks: number;
  readonly blockBytes: number;
  readonly vocabSize: number;
  /** owner -> bytes; what GET /memory shows. */
  readonly memory: Readonly<Record<string, number>>;
}

export interface StepOutput {
  readonly kind: 'stepOutput';
  readonly step: number;
  readonly generation: number;
  readonly rank: number;
  /** Alternatives per token in topIds and promptTopIds. */
  readonly numTop: number;
  /** Hash of row table and sampled ids (32 bits); equal on all ranks. */
  readonly hash: number;
  /** CLOCK_MONOTONIC microseconds at which the device began and ended the step. */
  readonly startUs: number;
  readonly endUs: number;
  readonly columns: StepOutputColumns;
}

/** Every 500 ms while a step is in flight. */
export interface Heartbeat {
  readonly kind: 'heartbeat';
  readonly rank: number;
  readonly step: number;
  readonly opIndex: number;
}

/** The backend failed in this step; every step in flight is void and the worker is replaced. */
export interface WorkerFailed {
  readonly kind: 'workerFailed';
  readonly rank: number;
  readonly step: number;
  readonly op: string | null;
  readonly message: string;
}

export type WorkerToEngine = Hello | WorkerReady | StepOutput | Heartbeat | WorkerFailed;

// ---------------------------------------------------------------- engine -> worker

export interface WorkerWelcome {
  readonly kind: 'welcome';
  readonly protocol: number;
  readonly generation: number;
}

export interface StepInput {
  readonly kind: 'stepInput';
  readonly step: number;
  readonly generation: number;
  /** Sum of `count`, so that the receiver can size its work before it reads. */
  readonly numTokens: number;
  /** Reserved for KV connectors. */
  readonly connectorMeta: null;
  readonly columns: StepInputColumns;
}

export type EngineToWorker = WorkerWelcome | Refused | StepInput;

// ---------------------------------------------------------------- any process <-> supervisor

/** Answer to Hello: everything that the process needs, its own slice of the configuration. */
export interface ProcessConfig {
  readonly kind: 'config';
  readonly config: Readonly<Record<string, unknown>>;
}

export interface Drain {
  readonly kind: 'drain';
  /** Requests still open after this long are ended with shutting_down. */
  readonly timeoutMs: number;
}

export interface Stop {
  readonly kind: 'stop';
}

export type SupervisorToProcess = ProcessConfig | Refused | Drain | Stop | PeerLost | PeerReady;

/** The process serves; `info` is what its role reports (worker memory, KV capacity, port). */
export interface Ready {
  readonly kind: 'ready';
  readonly role: Role;
  readonly index: number;
  readonly generation: number;
  readonly info: Readonly<Record<string, unknown>>;
}

/** Nothing is left to drain. */
export interface Drained {
  readonly kind: 'drained';
}

/** The process ends itself and says why: the first cause that the supervisor latches. */
export interface Fatal {
  readonly kind: 'fatal';
  readonly exitCode: number;
  readonly message: string;
}

/** The engine has found a worker that must be replaced. */
export interface ReplacePeer {
  readonly kind: 'replacePeer';
  readonly role: Role;
  readonly index: number;
  readonly generation: number;
  readonly reason: string;
}

export type ProcessToSupervisor = Hello | Ready | Drained | Fatal | ReplacePeer;
