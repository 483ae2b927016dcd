// Caps on connections, in all and from one address: one client alone cannot take every one. What
// is over a cap is answered at once and closed.
import type { Server } from 'node:http';
import { isIPv6, type Socket } from 'node:net';
import type { HttpLimits } from '../../common/limits.ts';
import { RequestError } from '../../common/errors.ts';
import { refuseSocket } from './parser-errors.ts';

export interface ConnectionCapOptions {
  readonly limits: Pick<HttpLimits, 'connections' | 'connectionsPerAddress'>;
  /** Then no words can be said before the handshake. */
  readonly isTls: boolean;
  /** A connection was refused; called for each. */
  readonly refused: (reason: string) => void;
}

export function capConnections(server: Server, options: ConnectionCapOptions): void {
  const { connections, connectionsPerAddress } = options.limits;
  const numByClient = new Map<string, number>();
  let numOpen = 0;
  server.on('connection', (socket: Socket) => {
    // A unix socket's peer has no address.
    const client = socket.remoteAddress === undefined ? null : clientOf(socket.remoteAddress);
    const numOfClient = client === null ? 0 : (numByClient.get(client) ?? 0);
    const reason =
      connections > 0 && numOpen >= connections
        ? `there are ${connections} connections already`
        : connectionsPerAddress > 0 && numOfClient >= connectionsPerAddress
          ? `there are ${connectionsPerAddress} connections from this address already`
          : null;
    if (reason !== null) {
      options.refused(reason);
      if (options.isTls) socket.destroy();
      else refuseSocket(socket, 503, new RequestError('not_ready', reason));
      return;
    }
    numOpen++;
    if (client !== null) numByClient.set(client, numOfClient + 1);
    socket.once('close', () => {
      numOpen--;
      if (client === null) return;
      const left = numByClient.get(client)! - 1;
      if (left === 0) numByClient.delete(client);
      else numByClient.set(client, left);
    });
  });
}

/**
 * Ends a connection with the answer to its last request. Node announces that by itself
 * (maxRequestsPerSocket), but then waits for the client to close, as long as for another request.
 */
export function closeAfterLast(server: Server, requestsPerConnection: number): void {
  if (requestsPerConnection === 0) return;
  const counts = new WeakMap<Socket, number>();
  // Ahead of the routes: some answer before a later listener would be called.
  server.prependListener('request', ({ socket }, response) => {
    const count = (counts.get(socket) ?? 0) + 1;
    counts.set(socket, count);
    if (count === requestsPerConnection) response.setHeader('connection', 'close');
  });
}

/** An IPv4 address, also where it comes as IPv6; of other IPv6 the /64 that a client has whole. */
export function clientOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!isIPv6(address)) return address;
  const [head = '', tail] = address.split('%')[0]!.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const left = groups(head);
  const right = groups(tail ?? '');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  return [...left, ...Array<string>(zeros).fill('0'), ...right].slice(0, 4).join(':') + '::/64';
}
