// Links: a ROUTER that binds, DEALERs that connect. Each has one send queue (zeromq allows one
// pending send and receive a socket), high-water marks of 0 (a ROUTER at its mark drops silently;
// credits are the bound) and linger 0. A link moves messages; what they mean is its owner's
// business. Bytes that are no message of ours drop the peer that sent them, nothing else.
import { Dealer, Router } from 'zeromq';
import { WireError } from '../errors.ts';
import { decodeMessage, encodeMessage, type Frames, type WireMessage } from './codec.ts';

export type AnyMessage = WireMessage & Record<string, unknown>;

/** Names a peer of a ROUTER until it disconnects. */
export type PeerId = string;

/** CURVE key pair and, for a DEALER, the server's public key (Z85 text). */
export interface CurveKeys {
  readonly publicKey: string;
  readonly secretKey: string;
  readonly serverKey: string | null;
}

export interface RouterEvents {
  message(peer: PeerId, message: AnyMessage): void;
  /** The peer's connection is gone; its identity will not come back. */
  disconnected(peer: PeerId): void;
  /** Bytes that are not a message; every later frame of this peer is dropped unread. */
  rejected(peer: PeerId, error: WireError): void;
}

// ZMQ_ROUTER_NOTIFY, a draft option that zeromq.js is built with: an empty
// frame from an identity says that it connected or disconnected.
const routerNotify = 97;
const notifyDisconnect = 2;
type OptionSetter = { setInt32Option(option: number, value: number): void };

/** Sends frames one after another; several sends may be asked for at once. */
class SendQueue {
  private readonly queue: (Uint8Array | string)[][] = [];
  private sending = false;
  private readonly socket: { send(frames: (Uint8Array | string | Buffer)[]): Promise<void> };

  constructor(socket: { send(frames: (Uint8Array | string | Buffer)[]): Promise<void> }) {
    this.socket = socket;
  }

  push(frames: (Uint8Array | string)[]): void {
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
      } catch {
        // The socket is closed or the peer has gone: its owner learns it by other ways.
      }
    }
    this.sending = false;
  }
}

export class RouterLink {
  readonly address: string;
  private readonly socket: Router;
  private readonly queue: SendQueue;
  private readonly peers = new Map<PeerId, Uint8Array>();
  private readonly refused = new Set<PeerId>();
  private closed = false;

  private constructor(address: string, socket: Router) {
    this.address = address;
    this.socket = socket;
    this.queue = new SendQueue(socket);
  }

  /** Binds `address` (ipc:// or tcp://HOST:PORT; port * is resolved in `address`). */
  static async bind(address: string, events: RouterEvents, curve?: CurveKeys): Promise<RouterLink> {
    const socket = new Router({
      linger: 0,
      sendHighWaterMark: 0,
      receiveHighWaterMark: 0,
      ...(curve && {
        curveServer: true,
        curvePublicKey: curve.publicKey,
        curveSecretKey: curve.secretKey,
      }),
    });
    (socket as unknown as OptionSetter).setInt32Option(routerNotify, notifyDisconnect);
    await socket.bind(address);
    const link = new RouterLink(socket.lastEndpoint ?? address, socket);
    void link.receive(events);
    return link;
  }

  /** Silently does nothing for a peer that has disconnected. */
  send(peer: PeerId, message: WireMessage): void {
    this.sendFrames(peer, encodeMessage(message));
  }

  /** For a message that goes to several peers: encode once. */
  sendFrames(peer: PeerId, frames: Frames): void {
    const identity = this.peers.get(peer);
    if (identity && !this.closed) this.queue.push([identity, ...frames]);
  }

  get numPeers(): number {
    return this.peers.size;
  }

  close(): void {
    this.closed = true;
    this.socket.close();
  }

  /** A method, so that the compiler expects it to change across an await. */
  private isClosed(): boolean {
    return this.closed;
  }

  private async receive(events: RouterEvents): Promise<void> {
    while (!this.isClosed()) {
      let frames: Uint8Array[];
      try {
        frames = await this.socket.receive();
      } catch {
        continue;
      }
      const identity = frames[0]!;
      const peer = Buffer.from(identity.buffer, identity.byteOffset, identity.length).toString(
        'hex',
      );
      if (frames.length === 2 && frames[1]!.length === 0) {
        this.refused.delete(peer);
        if (this.peers.delete(peer)) events.disconnected(peer);
        continue;
      }
      if (this.refused.has(peer)) continue;
      if (!this.peers.has(peer)) this.peers.set(peer, identity.slice());
      try {
        events.message(peer, decodeMessage(frames.slice(1)));
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.refused.add(peer);
        events.rejected(peer, error);
      }
    }
  }
}

export interface DealerEvents {
  message(message: AnyMessage): void;
  rejected(error: WireError): void;
}

export class DealerLink {
  private readonly socket: Dealer;
  private readonly queue: SendQueue;
  private closed = false;

  /** Connects; zeromq reconnects by itself, and `hello` is sent again then. */
  constructor(address: string, hello: WireMessage, events: DealerEvents, curve?: CurveKeys) {
    this.socket = new Dealer({
      linger: 0,
      sendHighWaterMark: 0,
      receiveHighWaterMark: 0,
      ...(curve && {
        curveServerKey: curve.serverKey,
        curvePublicKey: curve.publicKey,
        curveSecretKey: curve.secretKey,
      }),
    });
    this.queue = new SendQueue(this.socket);
    let handshakes = 0;
    this.socket.events.on('handshake', () => {
      if (handshakes++ > 0) this.send(hello);
    });
    this.socket.connect(address);
    this.send(hello);
    void this.receive(events);
  }

  send(message: WireMessage): void {
    if (!this.closed) this.queue.push(encodeMessage(message));
  }

  get numQueued(): number {
    return this.queue.length;
  }

  close(): void {
    this.closed = true;
    this.socket.close();
  }

  /** A method, so that the compiler expects it to change across an await. */
  private isClosed(): boolean {
    return this.closed;
  }

  private async receive(events: DealerEvents): Promise<void> {
    while (!this.isClosed()) {
      let frames: Uint8Array[];
      try {
        frames = await this.socket.receive();
      } catch {
        continue;
      }
      try {
        events.message(decodeMessage(frames));
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        events.rejected(error);
      }
    }
  }
}
