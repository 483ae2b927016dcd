// What messages of several links have in common: who speaks, the handshake, news of peers.

export const protocolVersion = 3;

export type Role = 'supervisor' | 'node' | 'frontend' | 'engine' | 'worker' | 'detokenizer';

/** First message on every link, from the DEALER; repeated after a reconnect. */
export interface Hello {
  readonly kind: 'hello';
  readonly protocol: number;
  /** Per-boot secret (hex); from the environment of our own processes or from frontend.json. */
  readonly token: string;
  readonly role: Role | 'client';
  /** Index among processes of the role; rank for a worker, node rank for a node. 0 for a foreign frontend. */
  readonly index: number;
  readonly generation: number;
  /** Hash of the build between our own processes, null from a foreign frontend. */
  readonly build: string | null;
  readonly pid: number;
}

/** Answer to a Hello that is refused; the peer closes. */
export interface Refused {
  readonly kind: 'refused';
  readonly message: string;
  readonly protocol: number;
  readonly build: string | null;
}

/** A peer of the server is gone; open requests that needed it get their terminal message. */
export interface PeerLost {
  readonly kind: 'peerLost';
  readonly role: Role;
  readonly index: number;
  readonly generation: number;
}

/**
 * A replaced process serves under its new generation and addresses. From the supervisor to all, and
 * passed on by the engine to its frontends when it is the detokenizer.
 */
export interface PeerReady {
  readonly kind: 'peerReady';
  readonly role: Role;
  readonly index: number;
  readonly generation: number;
  /** Where it binds, by who connects: `frontend`, `engine`, `worker`. */
  readonly addresses: Readonly<Record<string, string>>;
}

export const finishReasons = ['none', 'stop', 'length', 'abort', 'error', 'repetition'] as const;
export type FinishReason = (typeof finishReasons)[number];
