// Bytes that are no HTTP request never reach a route; their answer is written to the socket by hand.
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
  const { error: shape } = errorBody(new RequestError('bad_request', 'the request is malformed'));
  const body = JSON.stringify({ error: { ...shape, code: status } });
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nconnection: close\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
