// The end of a link that binds: a ROUTER that tells its peers apart, notices when one leaves, and
// can refuse one. What a message means is the owner's business. Bytes that are no message of ours
// drop the peer that sent them, nothing else.
import { Router } from 'zeromq';
import { WireError } from '../errors.ts';
import {
  decodeMessage,
  encodeMessage,
  type AnyMessage,
  type Frames,
  type WireMessage,
} from './codec.ts';
import type { Refused } from './messages.ts';
import {
  checkAddress,
  handshakeErrors,
  SendQueue,
  socketOptions,
  type CurveKeys,
} from './socket.ts';

/** Names a peer of a ROUTER until it disconnects. */
export type PeerId = string;

export interface RouterEvents {
  /** A WireError that this throws counts as bytes that are not a message. */
  message(peer: PeerId, message: AnyMessage): void;
  /** The peer's connection is gone; its identity will not come back. */
  disconnected(peer: PeerId): void;
  /** Bytes that are not a message; every later frame of this peer is dropped unread. */
  rejected(peer: PeerId, error: WireError): void;
  /** A stranger did not get past the handshake: it has other keys, or speaks something else. */
  turnedAway?(): void;
}

/** A stranger's first message is its hello: one frame of at most this many bytes, else unread. */
export const maxHelloBytes = 4096;

// ZMQ_ROUTER_NOTIFY, a draft option that zeromq.js is built with: an empty
// frame from an identity says that it disconnected.
const routerNotify = 97;
const notifyDisconnect = 2;
type OptionSetter = { setInt32Option(option: number, value: number): void };

export interface BindOptions {
  readonly curve?: CurveKeys | null;
  /**
   * A peer that leaves about this many messages unread, beside what the kernel buffers, counts as
   * disconnected. 0 = no bound, for peers of our own.
   */
  readonly maxUnread?: number;
  /** Over tcp a peer that is silent for this long has vanished. */
  readonly silenceMs?: number;
}

/** For links to frontends, which may be anybody's: above any burst that credit allows. */
export const maxUnreadByFrontend = 4096;

/** Of a burst, before the owner gets a turn for what is not a message: so a step can begin on it. */
const maxAtOnce = 16;

export class RouterLink {
  readonly address: string;
  private readonly socket: Router;
  private readonly queue: SendQueue;
  private readonly peers = new Map<PeerId, Uint8Array>();
  private readonly refused = new Set<PeerId>();
  private closed = false;

  private constructor(address: string, socket: Router, events: RouterEvents) {
    this.address = address;
    this.socket = socket;
    this.queue = new SendQueue(socket, (frames, error) => {
      const isFull = error instanceof Error && 'code' in error && error.code === 'EAGAIN';
      if (isFull) this.giveUp(frames[0] as Uint8Array, events);
    });
  }

  /** Binds `address` (ipc:// or tcp://HOST:PORT; port * is resolved in `address`). */
  static async bind(
    address: string,
    events: RouterEvents,
    { curve = null, maxUnread = 0, silenceMs }: BindOptions = {},
  ): Promise<RouterLink> {
    checkAddress(address);
    const socket = new Router({
      ...socketOptions(address, silenceMs),
      // At its mark such a ROUTER says so instead of dropping silently.
      ...(maxUnread > 0 && { sendHighWaterMark: maxUnread, mandatory: true, sendTimeout: 0 }),
      ...(curve && {
        curveServer: true,
        curvePublicKey: curve.publicKey,
        curveSecretKey: curve.secretKey,
      }),
    });
    for (const event of handshakeErrors) socket.events.on(event, () => events.turnedAway?.());
    (socket as unknown as OptionSetter).setInt32Option(routerNotify, notifyDisconnect);
    try {
      await socket.bind(address);
    } catch (error) {
      socket.close();
      throw error;
    }
    const link = new RouterLink(socket.lastEndpoint ?? address, socket, events);
    // A peer may have been waiting: its hello must not come before the caller has this link.
    setImmediate(() => void link.receive(events));
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

  /** Answers `refused` and drops, unread, all that the peer sends until it disconnects. */
  refuse(peer: PeerId, message: Refused): void {
    this.send(peer, message);
    this.drop(peer);
  }

  /** Drops, unread, all that the peer sends until it disconnects; it can still be sent to. */
  drop(peer: PeerId): void {
    if (this.peers.has(peer)) this.refused.add(peer);
  }

  get numPeers(): number {
    return this.peers.size;
  }

  close(): void {
    this.closed = true;
    this.socket.close();
  }

  /** The peer reads nothing: as far as its owner knows it has disconnected. */
  private giveUp(identity: Uint8Array, events: RouterEvents): void {
    const peer = nameOf(identity);
    if (!this.peers.delete(peer)) return;
    this.refused.add(peer);
    events.disconnected(peer);
  }

  private async receive(events: RouterEvents): Promise<void> {
    for (let count = 1; ; count++) {
      // Messages that are there already come without a turn of the event loop between them.
      if (count % maxAtOnce === 0) await new Promise((resolve) => setImmediate(resolve));
      let frames: Uint8Array[];
      try {
        frames = await this.socket.receive();
      } catch (error) {
        if (this.socket.closed) return;
        throw error;
      }
      this.handle(frames, events);
    }
  }

  private handle(frames: Uint8Array[], events: RouterEvents): void {
    const identity = frames[0]!;
    const peer = nameOf(identity);
    if (frames.length === 2 && frames[1]!.length === 0) {
      this.refused.delete(peer);
      if (this.peers.delete(peer)) events.disconnected(peer);
      return;
    }
    if (this.closed || this.refused.has(peer)) return;
    try {
      if (!this.peers.has(peer)) {
        this.peers.set(peer, identity.slice());
        if (frames.length !== 2 || frames[1]!.length > maxHelloBytes)
          throw new WireError('the first message is not a hello');
      }
      events.message(peer, decodeMessage(frames.slice(1)));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.refused.add(peer);
      events.rejected(peer, error);
    }
  }
}

function nameOf(identity: Uint8Array): PeerId {
  return Buffer.from(identity.buffer, identity.byteOffset, identity.length).toString('hex');
}
