// Answers that are written to a socket by hand: to bytes that are no HTTP request and never reach a
// route, and to connections that are refused.
import { STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { errorCodes, RequestError } from '../../common/errors.ts';
import { errorBody } from './http-errors.ts';

const faults: Readonly<Record<string, readonly [status: number, message: string]>> = {
  HPE_HEADER_OVERFLOW: [431, 'the headers are too large (--max-header-bytes)'],
  ERR_HTTP_REQUEST_TIMEOUT: [
    408,
    'the request took too long to come (--headers-timeout, --request-timeout)',
  ],
};

/** Makes the server answer what its parser refuses or would drop without a word. */
export function answerParserErrors(server: Server): void {
  const latest = new WeakMap<Duplex, { request: IncomingMessage; response: ServerResponse }>();
  server.prependListener('request', (request, response) => {
    latest.set(request.socket, { request, response });
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const last = latest.get(socket);
    // Whatever a peer still sends after its answer is an error again.
    if (!socket.writable || (last !== undefined && !mayAnswer(last))) {
      socket.destroy();
      return;
    }
    const [status, message] = faults[error.code ?? ''] ?? [400, 'the request is malformed'];
    socket.end(rawAnswer(status, new RequestError('bad_request', message)));
  });
  server.on('connect', (_request, socket) => {
    const error = new RequestError('method_not_allowed', 'this server is no proxy');
    socket.end(rawAnswer(errorCodes[error.code].status, error), () => socket.destroy());
  });
  // What a client expects beyond 100-continue does not matter to its answer.
  server.on('checkExpectation', (request, response) => server.emit('request', request, response));
}

/** Tells a client that has forgotten the s of https, where the handshake would fail without a word. */
export function answerPlainHttp(server: Server): void {
  server.on('tlsClientError', (error: NodeJS.ErrnoException, secure: object) => {
    if (error.code !== 'ERR_SSL_HTTP_REQUEST') return;
    // Node has no public way from a TLS socket to the one below; without it nothing is said.
    const { _parent: plain } = secure as { readonly _parent?: unknown };
    if (!(plain instanceof Socket) || !plain.writable) return;
    refuseSocket(plain, 400, new RequestError('bad_request', 'this port speaks HTTPS'));
  });
}

/**
 * Into or ahead of another answer nothing may be written. The malformed request is the latest one
 * where that is not complete, and an unseen one after it otherwise.
 */
function mayAnswer({ request, response }: { request: IncomingMessage; response: ServerResponse }) {
  if (request.complete) return response.writableFinished;
  // Behind another answer on the same connection a response has no socket yet.
  return response.socket !== null && !response.headersSent;
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
