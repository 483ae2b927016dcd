// Who wants to know when a connection closes. An answer that waits behind another on the same
// connection (pipelining) has no socket yet and never hears of it; one listener a socket tells all.
import type { Socket } from 'node:net';

const watchers = new WeakMap<Socket, Set<() => void>>();

/** Calls back once, when the socket closes; returns what takes that back. */
export function onSocketClose(socket: Socket, callback: () => void): () => void {
  let callbacks = watchers.get(socket);
  if (callbacks === undefined) {
    const all = new Set<() => void>();
    callbacks = all;
    watchers.set(socket, all);
    socket.once('close', () => {
      for (const call of all) call();
    });
  }
  callbacks.add(callback);
  return () => callbacks.delete(callback);
}
