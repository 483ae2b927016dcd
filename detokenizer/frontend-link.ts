// The link to frontends, ours and foreign ones: who may speak, who may attach as whom, and the text
// calls. A bad message costs its sender the connection and nobody else anything.
import { WireError } from '../common/errors.ts';
import type { DetokenizerSlice, Listen } from '../common/config.ts';
import type { Logger } from '../common/log.ts';
import type { TextService } from '../common/text/text-service.ts';
import { checkHello } from '../common/wire/handshake.ts';
import {
  protocolVersion,
  type Attach,
  type Attached,
  type Credit,
  type DetokenizerToFrontend,
  type DetokenizerWelcome,
  type Refused,
} from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import {
  maxUnreadByFrontend,
  RouterLink,
  type AnyMessage,
  type PeerId,
} from '../common/wire/transport.ts';
import { Attachments } from './attachments.ts';
import { isTextCall, TextCallServer } from './text-call-server.ts';

export interface FrontendLinkOptions {
  readonly slice: Pick<DetokenizerSlice, 'textLimits'>;
  readonly token: string;
  /** The detokenizer's own. */
  readonly generation: number;
  readonly log: Logger;
  readonly text: TextService;
}

export interface FrontendLinkEvents {
  /** null = the engine has introduced no such frontend (yet). */
  attachKeyOf(frontendId: number): string | null;
  attached(peer: PeerId, attach: Attach): void;
  credit(peer: PeerId, credit: Credit): void;
  /** Its connection is gone, or was taken from it. */
  gone(peer: PeerId): void;
}

export class FrontendLink {
  private readonly options: FrontendLinkOptions;
  private readonly events: FrontendLinkEvents;
  private readonly attachments = new Attachments();
  private readonly calls: TextCallServer;
  /** Those that said hello. */
  private readonly welcomed = new Set<PeerId>();
  private link: RouterLink | null = null;

  constructor(options: FrontendLinkOptions, events: FrontendLinkEvents) {
    this.options = options;
    this.events = events;
    this.calls = new TextCallServer(
      options.text,
      options.slice.textLimits.messages,
      (peer, message) => this.send(peer, message),
    );
  }

  async bind({ address, curve }: Listen): Promise<void> {
    this.link = await RouterLink.bind(
      address,
      {
        message: (peer, message) => this.receive(peer, message),
        disconnected: (peer) => this.gone(peer),
        rejected: (peer, error) => {
          this.options.log.warn({ reason: error.message }, 'dropped a frontend');
          this.gone(peer);
        },
      },
      { curve, maxUnread: maxUnreadByFrontend },
    );
  }

  send(peer: PeerId, message: DetokenizerToFrontend): void {
    this.link?.send(peer, message);
  }

  sendToAll(message: DetokenizerToFrontend): void {
    for (const peer of this.welcomed) this.send(peer, message);
  }

  /** The engine has introduced a frontend: those that waited to attach as it may be let in. */
  introduced(frontendId: number): void {
    for (const [peer, attach] of this.attachments.take(frontendId)) this.attach(peer, attach);
  }

  refuse(peer: PeerId, reason: string): void {
    const refused: Refused = {
      kind: 'refused',
      message: reason,
      protocol: protocolVersion,
      build: null,
    };
    this.link?.refuse(peer, refused);
    this.gone(peer);
  }

  tick(): void {
    for (const [peer] of this.attachments.takeExpired(performance.now()))
      this.refuse(peer, 'the engine knows no such frontend');
  }

  close(): void {
    this.link?.close();
  }

  private receive(peer: PeerId, message: AnyMessage): void {
    if (message.kind === 'hello') {
      this.welcome(peer, message);
      return;
    }
    if (!this.welcomed.has(peer)) throw new WireError(`${message.kind} before hello`);
    // A call can be answered with what is wrong with it, so it checks its fields itself.
    if (isTextCall(message)) {
      this.calls.handle(peer, message);
      return;
    }
    const received = receive('frontendToDetokenizer', message);
    if (received.kind === 'attach') this.attach(peer, received);
    else if (received.kind === 'credit') this.events.credit(peer, received);
  }

  private welcome(peer: PeerId, message: AnyMessage): void {
    const { token, generation } = this.options;
    const hello = checkHello(message, { token, roles: ['frontend', 'client'] });
    if (hello.kind === 'refused') {
      this.link!.refuse(peer, hello);
      return;
    }
    this.welcomed.add(peer);
    const welcome: DetokenizerWelcome = { kind: 'welcome', protocol: protocolVersion, generation };
    this.send(peer, welcome);
  }

  private attach(peer: PeerId, attach: Attach): void {
    const { frontendId } = attach;
    const key = this.events.attachKeyOf(frontendId);
    switch (this.attachments.judge(peer, attach, key, performance.now())) {
      case 'attached': {
        const attached: Attached = { kind: 'attached', frontendId };
        this.send(peer, attached);
        this.events.attached(peer, attach);
        return;
      }
      case 'refused':
        this.refuse(peer, `may not attach as frontend ${frontendId}`);
        return;
      case 'waiting':
        return;
    }
  }

  private gone(peer: PeerId): void {
    this.welcomed.delete(peer);
    this.attachments.peerGone(peer);
    this.calls.peerGone(peer);
    this.events.gone(peer);
  }
}
