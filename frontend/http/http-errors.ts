// Errors as clients see them: one body shape for every route, and nothing in it that the client
// did not send or that the table of codes does not hold.
import type { FastifyError, FastifyReply } from 'fastify';
import { errorCodes, RequestError } from '../../common/errors.ts';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: number;
  };
}

/** The request ended because its client went away: there is nobody to answer. */
export class ClientGone extends Error {
  override readonly name = 'ClientGone';
}

export function errorBody(error: RequestError): ErrorBody {
  const { status, type } = errorCodes[error.code];
  return { error: { message: error.message, type, param: error.param, code: status } };
}

/** Whole seconds for Retry-After; undefined where trying again cannot help. */
export function retryAfter(error: RequestError): number | undefined {
  if (!errorCodes[error.code].retryable) return undefined;
  return Math.max(1, Math.ceil((error.retryAfterMs ?? 1000) / 1000));
}

export function sendError(reply: FastifyReply, error: RequestError): void {
  const seconds = retryAfter(error);
  if (seconds !== undefined) reply.header('retry-after', seconds);
  if (error.code === 'unauthorized') reply.header('www-authenticate', 'Bearer');
  reply.code(errorCodes[error.code].status).send(errorBody(error));
}

/** Anything thrown on the way of a request becomes one of ours; what is unforeseen says nothing. */
export function toRequestError(error: unknown): RequestError {
  if (error instanceof RequestError) return error;
  switch (String((error as Partial<FastifyError> | null)?.code)) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new RequestError('payload_too_large', 'the request body is too large');
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new RequestError('unsupported_media_type', 'Content-Type must be application/json');
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new RequestError('bad_request', 'Content-Length does not match the body');
    case 'FST_ERR_BAD_URL':
    case 'FST_ERR_ASYNC_CONSTRAINT':
      return new RequestError('bad_request', 'the URL is malformed');
    default:
      return new RequestError('internal', 'internal error');
  }
}
