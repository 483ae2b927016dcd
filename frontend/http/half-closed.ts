// A client that has closed its end of a connection has gone, or has only said that no request
// follows (shutdown(SHUT_WR), as `nc -N` and some proxies do) and waits for its answer. They differ
// in what comes back when it is sent something: from one that has gone a reset, after which the next
// write fails and the connection closes. So it is asked, with bytes that mean nothing.
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { onSocketEnd } from './socket-events.ts';

/** The second ask finds a client of this host gone, a later one a client that is far away. */
const firstPauseMs = 10;
const longestPauseMs = 2560;

/** Node closes the connection of such a client without an answer, unless this is set. */
export function answerHalfClosed(server: Server & { httpAllowHalfOpen?: boolean }): void {
  server.httpAllowHalfOpen = true;
}

/** Calls back from when the client closes its end until it is taken back, ever more rarely. */
export function whileHalfClosed(socket: Socket, ask: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const askAndWait = (pauseMs: number) => {
    timer = setTimeout(askAndWait, pauseMs, Math.min(4 * pauseMs, longestPauseMs));
    ask();
  };
  const forget = onSocketEnd(socket, () => askAndWait(firstPauseMs));
  return () => {
    forget();
    clearTimeout(timer);
  };
}
