// Links between our own processes, which are of one build: engine and detokenizer, engine and worker,
// every process and the supervisor.
import type { ErrorInfo } from '../errors.ts';
import type { TextParams } from '../sampling-params.ts';
import type { ColumnSpec, ColumnsOf } from './columns.ts';
import type { Hello, PeerLost, PeerReady, Refused, Role } from './messages-common.ts';
import type { DetokenizerWelcome } from './messages-frontend.ts';
import type { StepInputColumns, StepOutputColumns } from './step.ts';

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

/**
 * Tokens of one step, a row per request. Logprob entries: token k of the message has
 * logprobCount[k] entries, the sampled token first, then the best ones (or those that the request
 * named, with rank 0 = not known); likewise prompt logprobs.
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
  logprobCount: 'u32',
  logprobIds: 'i32',
  logprobs: 'f32',
  logprobRanks: 'i32',
  /** [p] row index into n, position in the prompt, and entries of each prompt token */
  promptLogprobRow: 'u32',
  promptLogprobPosition: 'i32',
  promptLogprobCount: 'u32',
  promptLogprobIds: 'i32',
  promptLogprobs: 'f32',
  promptLogprobRanks: 'i32',
} as const satisfies ColumnSpec;

export interface TokenOutputs {
  readonly kind: 'tokenOutputs';
  /** Acknowledged by number; the engine stops scheduling 64 steps after the last one that is. */
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

export type DetokenizerToEngine = DetokenizerWelcome | Refused | StopRequest | Ack;

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
  /** Hash of row table and sampled ids (32 bits); equal on all ranks. */
  readonly hash: number;
  /** CLOCK_MONOTONIC microseconds at which the device began and ended the step. */
  readonly startUs: number;
  readonly endUs: number;
  /** From the end of the step before, on the device, to this one's start; 0 for the first. */
  readonly deviceIdleUs: number;
  readonly columns: StepOutputColumns;
}

/** Every 500 ms while a step is in flight. -1 and -1: the device has not begun its first. */
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
  /** The rank that is to blame, if it is another: one that did not come to a collective. */
  readonly blamedRank: number | null;
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

/** Sent every second from ready on: the event loop turns. */
export interface Alive {
  readonly kind: 'alive';
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

export type ProcessToSupervisor = Hello | Ready | Alive | Drained | Fatal | ReplacePeer;
