// Answers that are written to a socket by hand: to bytes that are no HTTP request and never reach a
// route, and to connections that are refused.
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { RequestError } from '../../common/errors.ts';
import { errorBody } from './http-errors.ts';

const statusOf: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

export function answerParserError(error: NodeJS.ErrnoException, socket: Socket): void {
  // Into an answer that has begun nothing may be written.
  if (!socket.writable || socket.bytesWritten > 0) {
    socket.destroy();
    return;
  }
  const status = statusOf[error.code ?? ''] ?? 400;
  socket.end(rawAnswer(status, new RequestError('bad_request', 'the request is malformed')));
}

/** Says why, and closes at once: nothing that the peer sends is read. */
export function refuseSocket(socket: Socket, status: number, error: RequestError): void {
  socket.end(rawAnswer(status, error));
  socket.destroySoon();
}

function rawAnswer(status: number, error: RequestError): string {
  const { error: shape } = errorBody(error);
  const body = JSON.stringify({ error: { ...shape, code: status } });
  return (
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nconnection: close\r\n` +
    (status === 503 ? 'retry-after: 1\r\n' : '') +
    `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  );
}
