// The link to the engine: one peer at a time, whose messages are taken at their word once they have
// passed the door. Bad ones end the process, for they are a bug of ours.
import { WireError } from '../common/errors.ts';
import type { Listen } from '../common/config.ts';
import { checkHello } from '../common/wire/handshake.ts';
import {
  protocolVersion,
  type Ack,
  type DetokenizerWelcome,
  type FrontendJoined,
  type FrontendLeft,
  type StopRequest,
  type TokenOutputs,
} from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import { RouterLink, type AnyMessage, type PeerId } from '../common/wire/transport.ts';
import { Acknowledger } from './acknowledger.ts';

export interface EngineLinkEvents {
  frontendJoined(message: FrontendJoined): void;
  frontendLeft(message: FrontendLeft): void;
  tokenOutputs(message: TokenOutputs): void;
  /** The engine of this generation is gone, or its connection is. */
  lost(generation: number): void;
  fatal(error: unknown): void;
}

export class EngineLink {
  private readonly token: string;
  /** The detokenizer's own. */
  private readonly generation: number;
  private readonly events: EngineLinkEvents;
  private link: RouterLink | null = null;
  private readonly acknowledger = new Acknowledger((step) => this.acknowledge(step));
  private engine: { readonly peer: PeerId; readonly generation: number } | null = null;

  constructor(token: string, generation: number, events: EngineLinkEvents) {
    this.token = token;
    this.generation = generation;
    this.events = events;
  }

  async bind({ address, curve }: Listen): Promise<void> {
    this.link = await RouterLink.bind(
      address,
      {
        message: (peer, message) => this.receive(peer, message),
        disconnected: (peer) => {
          if (this.engine?.peer === peer) this.lost();
        },
        rejected: (peer, error) => {
          if (this.engine?.peer === peer) this.events.fatal(error);
        },
      },
      { curve },
    );
  }

  /** Forgets the engine; does nothing when there is none. */
  lost(): void {
    if (!this.engine) return;
    const { generation } = this.engine;
    this.engine = null;
    this.acknowledger.forget();
    this.events.lost(generation);
  }

  stop(message: StopRequest): void {
    if (this.engine) this.link?.send(this.engine.peer, message);
  }

  close(): void {
    this.acknowledger.forget();
    this.link?.close();
  }

  private acknowledge(step: number): void {
    const ack: Ack = { kind: 'ack', step };
    if (this.engine) this.link?.send(this.engine.peer, ack);
  }

  private receive(peer: PeerId, message: AnyMessage): void {
    if (message.kind === 'hello') {
      this.welcome(peer, message);
      return;
    }
    if (this.engine?.peer !== peer) throw new WireError(`${message.kind} before hello`);
    const received = receive('engineToDetokenizer', message);
    switch (received.kind) {
      case 'hello':
        return;
      case 'frontendJoined':
        this.events.frontendJoined(received);
        return;
      case 'frontendLeft':
        this.events.frontendLeft(received);
        return;
      case 'tokenOutputs': {
        // What an engine before this one has left in the socket is nobody's.
        if (received.generation !== this.engine.generation) return;
        this.events.tokenOutputs(received);
        this.acknowledger.handled(received.step);
        return;
      }
    }
  }

  private welcome(peer: PeerId, message: AnyMessage): void {
    const hello = checkHello(message, { token: this.token, roles: ['engine'] });
    if (hello.kind === 'refused') {
      this.link!.refuse(peer, hello);
      return;
    }
    this.lost();
    this.engine = { peer, generation: hello.generation };
    const { generation } = this;
    const welcome: DetokenizerWelcome = { kind: 'welcome', protocol: protocolVersion, generation };
    this.link!.send(peer, welcome);
  }
}
