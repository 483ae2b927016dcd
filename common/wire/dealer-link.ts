// The end of a link that connects: a DEALER whose first message on every connection is its hello.
// A lost connection is a lost session: what was not yet sent belonged to it and goes with it, and a
// fresh socket (a fresh identity) takes its place, so that nothing can overtake the new hello.
import { Dealer } from 'zeromq';
import { WireError } from '../errors.ts';
import { decodeMessage, encodeMessage, type AnyMessage, type WireMessage } from './codec.ts';
import {
  checkAddress,
  handshakeErrors,
  repeatInterrupted,
  SendQueue,
  socketOptions,
  type CurveKeys,
} from './socket.ts';

const reconnectMs = 100;

export interface DealerEvents {
  /** A WireError that this throws counts as bytes that are not a message. */
  message(message: AnyMessage): void;
  /** Bytes that are not a message; the link goes on. */
  rejected(error: WireError): void;
  /** The connection broke; a new one with a new hello is tried every 100 ms until `close`. */
  disconnected?(): void;
  /** Somebody listens there, but not with this link's keys; it is tried again all the same. */
  turnedAway?(): void;
}

export class DealerLink {
  private readonly address: string;
  private readonly hello: WireMessage;
  private readonly events: DealerEvents;
  private readonly curve: CurveKeys | undefined;
  private readonly silenceMs: number | undefined;
  private connection: { readonly socket: Dealer; readonly queue: SendQueue } | null = null;
  private retry: NodeJS.Timeout | null = null;
  private closed = false;

  /** Connects; the peer need not be there yet. */
  constructor(
    address: string,
    hello: WireMessage,
    events: DealerEvents,
    curve?: CurveKeys,
    silenceMs?: number,
  ) {
    checkAddress(address);
    this.address = address;
    this.hello = hello;
    this.events = events;
    this.curve = curve;
    this.silenceMs = silenceMs;
    this.connect();
  }

  /** What is sent while the connection is broken is lost. */
  send(message: WireMessage): void {
    this.connection?.queue.push(encodeMessage(message));
  }

  get numQueued(): number {
    return this.connection?.queue.length ?? 0;
  }

  close(): void {
    this.closed = true;
    if (this.retry) clearTimeout(this.retry);
    this.disconnect();
  }

  private connect(): void {
    const socket = repeatInterrupted(() => this.open());
    this.connection = { socket, queue: new SendQueue(socket) };
    this.send(this.hello);
    void this.receive(socket);
  }

  /** A socket that is watched and connects; one that could not be made is closed. */
  private open(): Dealer {
    const { curve } = this;
    const socket = new Dealer({
      ...socketOptions(this.address, this.silenceMs),
      ...(curve && {
        curveServerKey: curve.serverKey,
        curvePublicKey: curve.publicKey,
        curveSecretKey: curve.secretKey,
      }),
    });
    try {
      let established = false;
      socket.events.on('handshake', () => (established = true));
      for (const event of handshakeErrors)
        socket.events.on(event, () => {
          if (this.connection?.socket === socket) this.events.turnedAway?.();
        });
      socket.events.on('disconnect', () => {
        if (this.connection?.socket !== socket) return;
        this.disconnect();
        this.retry = setTimeout(() => this.connect(), reconnectMs);
        if (established) this.events.disconnected?.();
      });
      socket.connect(this.address);
      return socket;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  private disconnect(): void {
    this.connection?.socket.close();
    this.connection = null;
  }

  private async receive(socket: Dealer): Promise<void> {
    for (;;) {
      let frames: Uint8Array[];
      try {
        frames = await socket.receive();
      } catch (error) {
        if (socket.closed) return;
        throw error;
      }
      if (this.closed || this.connection?.socket !== socket) return;
      try {
        this.events.message(decodeMessage(frames));
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.events.rejected(error);
      }
    }
  }
}
