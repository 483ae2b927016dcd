// Every error that a client, an operator or a peer process can meet: one table of codes, one class
// to carry a code, and the few classes that say where a failure belongs.

/** code -> HTTP status, OpenAI error type, whether the same request may succeed later. */
export const errorCodes = {
  bad_request: { status: 400, type: 'BadRequestError', retryable: false },
  context_length_exceeded: { status: 400, type: 'BadRequestError', retryable: false },
  unsupported: { status: 400, type: 'BadRequestError', retryable: false },
  unauthorized: { status: 401, type: 'AuthenticationError', retryable: false },
  forbidden: { status: 403, type: 'PermissionDeniedError', retryable: false },
  not_found: { status: 404, type: 'NotFoundError', retryable: false },
  method_not_allowed: { status: 405, type: 'BadRequestError', retryable: false },
  payload_too_large: { status: 413, type: 'BadRequestError', retryable: false },
  unsupported_media_type: { status: 415, type: 'BadRequestError', retryable: false },
  queue_full: { status: 429, type: 'RateLimitError', retryable: true },
  slow_reader: { status: 499, type: 'APIError', retryable: false },
  invalid_logits: { status: 500, type: 'InternalServerError', retryable: false },
  internal: { status: 500, type: 'InternalServerError', retryable: false },
  worker_lost: { status: 500, type: 'InternalServerError', retryable: true },
  engine_lost: { status: 503, type: 'ServiceUnavailableError', retryable: true },
  detokenizer_lost: { status: 503, type: 'ServiceUnavailableError', retryable: true },
  shutting_down: { status: 503, type: 'ServiceUnavailableError', retryable: true },
  not_ready: { status: 503, type: 'ServiceUnavailableError', retryable: true },
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** An error as it crosses a process border or reaches a client. `param` names the field at fault. */
export interface ErrorInfo {
  readonly code: ErrorCode;
  readonly message: string;
  readonly param?: string | null;
  readonly retryAfterMs?: number;
}

/** A request that is refused or ended with an error; the server itself is well. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly code: ErrorCode;
  readonly param: string | null;
  readonly retryAfterMs: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    param: string | null = null,
    retryAfterMs?: number,
  ) {
    super(message);
    this.code = code;
    this.param = param;
    this.retryAfterMs = retryAfterMs;
  }

  static from(info: ErrorInfo): RequestError {
    return new RequestError(info.code, info.message, info.param ?? null, info.retryAfterMs);
  }

  info(): ErrorInfo {
    const { code, message, param, retryAfterMs } = this;
    return retryAfterMs === undefined
      ? { code, message, param }
      : { code, message, param, retryAfterMs };
  }
}

/**
 * Bytes from a peer that are not a message of ours (the peer is dropped, nothing else is harmed), or
 * a message of ours that cannot be bytes, with the field at fault.
 */
export class WireError extends Error {
  override readonly name = 'WireError';
  readonly field: string | null;
  constructor(message: string, field: string | null = null) {
    super(message);
    this.field = field;
  }
}

/**
 * A failure in native code, with the op that failed and, under --debug-sync, file and line; and the
 * rank that is to blame, if it is another one's.
 */
export class KernelError extends Error {
  override readonly name = 'KernelError';
  readonly op: string | null;
  readonly step: number | null;
  readonly rank: number | null;
  constructor(
    message: string,
    op: string | null = null,
    step: number | null = null,
    rank: number | null = null,
  ) {
    super(message);
    this.op = op;
    this.step = step;
    this.rank = rank;
  }
}

/** Exit codes of the command; anything else that is not 0 is an unforeseen failure (1). */
export const exitCodes = {
  badFlag: 64,
  badModel: 65,
  /** The nodes of one server do not have one key. */
  noPermission: 77,
  versionMismatch: 78,
  interrupted: 130,
} as const;

/** Ends the start of the server with one line and an exit code. */
export class StartError extends Error {
  override readonly name = 'StartError';
  readonly exitCode: number;
  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** What a model's files are at fault for; the message names file and field or tensor. */
export function badModel(message: string): StartError {
  return new StartError(exitCodes.badModel, message);
}
