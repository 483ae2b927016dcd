// What the sockets of both ends of a link share: their options, their addresses and the send queue
// (zeromq allows one pending send a socket). High-water marks are 0, because a ROUTER at its mark
// drops silently (credits are the bound; RouterLink can bound what a peer leaves unread); linger is
// 0, so that closing never waits for a peer.
import { curveKeyPair } from 'zeromq';
import { maxBodyBytes } from './columns.ts';

/** CURVE key pair and, for a DEALER, the server's public key (Z85 text). */
export interface CurveKeys {
  readonly publicKey: string;
  readonly secretKey: string;
  readonly serverKey: string | null;
}

/** Bytes of a unix socket's path; the kernel's own limit is 107. */
export const maxSocketPathBytes = 100;

/** Throws an Error that names an ipc path that is too long to be bound. */
export function checkAddress(address: string): void {
  const path = /^ipc:\/\/(.*)$/.exec(address)?.[1];
  if (path !== undefined && Buffer.byteLength(path) > maxSocketPathBytes)
    throw new Error(`socket path is over ${maxSocketPathBytes} bytes: ${path}`);
}

/** Our side of CURVE towards a server with this public key; none where it has none. */
export function clientCurve(serverKey: string | null): CurveKeys | undefined {
  return serverKey === null ? undefined : { ...curveKeyPair(), serverKey };
}

/** Over tcp a peer that says nothing for so long has vanished. */
const defaultSilenceMs = 20_000;

/** Of a socket's monitor: the connection stands, but the other end is not ours. */
export const handshakeErrors = [
  'handshake:error:protocol',
  'handshake:error:auth',
  'handshake:error:other',
] as const;

/** Options of every socket; over tcp a peer that has vanished is noticed by its silence. */
export function socketOptions(address: string, silenceMs = defaultSilenceMs) {
  return {
    linger: 0,
    sendHighWaterMark: 0,
    receiveHighWaterMark: 0,
    maxMessageSize: maxBodyBytes,
    ...(address.startsWith('tcp:') && {
      heartbeatInterval: silenceMs / 4,
      heartbeatTimeout: (silenceMs * 3) / 4,
    }),
  };
}

/** zeromq repeats most calls that a signal has interrupted, but neither connect nor `events`. */
export function repeatInterrupted<T>(call: () => T): T {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EINTR')) throw error;
    }
  }
}

type WireFrame = Uint8Array | string;

/** Sends messages one after another; any number may be pushed at once. */
export class SendQueue {
  private readonly queue: WireFrame[][] = [];
  private sending = false;
  private readonly socket: { send(frames: WireFrame[]): Promise<void> };
  private readonly failed: (frames: WireFrame[], error: unknown) => void;

  /** `failed`: a message was not sent. The socket is closed, or its peer has gone or reads nothing. */
  constructor(
    socket: { send(frames: WireFrame[]): Promise<void> },
    failed: (frames: WireFrame[], error: unknown) => void = () => undefined,
  ) {
    this.socket = socket;
    this.failed = failed;
  }

  push(frames: WireFrame[]): void {
    this.queue.push(frames);
    if (!this.sending) void this.drain();
  }

  get length(): number {
    return this.queue.length;
  }

  private async drain(): Promise<void> {
    this.sending = true;
    for (let next = this.queue.shift(); next; next = this.queue.shift()) {
      try {
        await this.socket.send(next);
      } catch (error) {
        // A closed socket's owner, and that of a peer who has gone, learns it by other ways.
        this.failed(next, error);
      }
    }
    this.sending = false;
  }
}
