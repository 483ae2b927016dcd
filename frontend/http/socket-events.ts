// Who wants to know when a client closes its end of a connection, or the connection closes. An
// answer that waits behind another on the same connection (pipelining) has no socket yet and never
// hears of it; one listener a socket tells all.
import type { Socket } from 'node:net';

type Watchers = WeakMap<Socket, Set<() => void>>;

const ofClose: Watchers = new WeakMap();
const ofEnd: Watchers = new WeakMap();

/** Calls back once, when the socket closes; returns what takes that back. */
export function onSocketClose(socket: Socket, callback: () => void): () => void {
  return watch(ofClose, socket, 'close', callback);
}

/** Calls back once, when nothing more will come, at once if that is so; returns the same. */
export function onSocketEnd(socket: Socket, callback: () => void): () => void {
  if (!socket.readableEnded) return watch(ofEnd, socket, 'end', callback);
  callback();
  return () => undefined;
}

function watch(watchers: Watchers, socket: Socket, event: 'close' | 'end', callback: () => void) {
  let callbacks = watchers.get(socket);
  if (callbacks === undefined) {
    const all = new Set<() => void>();
    callbacks = all;
    watchers.set(socket, all);
    socket.once(event, () => {
      for (const call of all) call();
    });
  }
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
  };
}
