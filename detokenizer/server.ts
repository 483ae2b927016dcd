// The detokenizer's two links, one for the engine and one for frontends, around the Detokenizer,
// which knows of neither. A frontend's bad message costs that frontend its connection and nobody
// else anything; a bad message of the engine ends the process.
import type { DetokenizerSlice } from '../common/config.ts';
import { WireError } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import type { TextService } from '../common/text/text-service.ts';
import { checkColumns } from '../common/wire/columns.ts';
import { checkHello } from '../common/wire/handshake.ts';
import {
  creditColumns,
  protocolVersion,
  type Ack,
  type Attach,
  type Attached,
  type DetokenizerWelcome,
  type EngineToDetokenizer,
  type Hello,
  type PeerLost,
  type Refused,
} from '../common/wire/messages.ts';
import { RouterLink, type AnyMessage, type PeerId } from '../common/wire/transport.ts';
import { Attachments } from './attachments.ts';
import { Detokenizer } from './detokenizer.ts';
import { isU32, TextCallServer } from './text-call-server.ts';

export interface ServerOptions {
  readonly slice: DetokenizerSlice;
  readonly token: string;
  readonly generation: number;
  readonly log: Logger;
  readonly text: TextService;
  /** The engine spoke nonsense: a bug of ours. */
  fatal(error: unknown): void;
}

const tickMs = 1000;

export class DetokenizerServer {
  private readonly options: ServerOptions;
  private readonly detokenizer: Detokenizer;
  private readonly attachments = new Attachments();
  private readonly calls: TextCallServer;
  /** Frontends that said hello and what they are. */
  private readonly welcomed = new Set<PeerId>();
  private engineLink: RouterLink | null = null;
  private frontendLink: RouterLink | null = null;
  private engine: { readonly peer: PeerId; readonly generation: number } | null = null;
  private readonly timer: NodeJS.Timeout;

  /** Binds both links. */
  static async start(options: ServerOptions): Promise<DetokenizerServer> {
    const server = new DetokenizerServer(options);
    const { engineListen, frontendListen } = options.slice;
    try {
      server.engineLink = await RouterLink.bind(
        engineListen.address,
        {
          message: (peer, message) => server.fromEngine(peer, message),
          disconnected: (peer) => {
            if (server.engine?.peer === peer) server.engineLost();
          },
          rejected: (peer, error) => {
            if (server.engine?.peer === peer) options.fatal(error);
          },
        },
        engineListen.curve ?? undefined,
      );
      server.frontendLink = await RouterLink.bind(
        frontendListen.address,
        {
          message: (peer, message) => server.fromFrontend(peer, message),
          disconnected: (peer) => server.frontendGone(peer),
          rejected: (peer, error) => {
            options.log.warn({ reason: error.message }, 'dropped a frontend');
            server.frontendGone(peer);
          },
        },
        frontendListen.curve ?? undefined,
      );
    } catch (error) {
      server.stop();
      throw error;
    }
    return server;
  }

  private constructor(options: ServerOptions) {
    this.options = options;
    this.detokenizer = new Detokenizer(
      options.text.tokenizer.table,
      options.generation,
      {
        textOutputs: (peer, message) => this.frontendLink?.send(peer, message),
        stopRequest: (message) => {
          if (this.engine) this.engineLink?.send(this.engine.peer, message);
        },
        dropFrontend: (peer, frontendId) => {
          options.log.warn({ frontendId }, 'dropped a frontend that reads nothing');
          if (peer !== null) this.refuse(peer, 'the frontend reads nothing');
        },
      },
      () => performance.now(),
    );
    this.calls = new TextCallServer(options.text, (peer, message) =>
      this.frontendLink?.send(peer, message),
    );
    this.timer = setInterval(() => this.tick(), tickMs);
  }

  get numOpen(): number {
    return this.detokenizer.numOpen;
  }

  /** Addresses as bound. */
  get addresses(): { readonly engine: string; readonly frontend: string } {
    return { engine: this.engineLink!.address, frontend: this.frontendLink!.address };
  }

  /** Every request went with it; the frontends learn it, for they may know nobody else to ask. */
  engineLost(): void {
    if (!this.engine) return;
    const { generation } = this.engine;
    this.engine = null;
    this.detokenizer.reset();
    const lost: PeerLost = { kind: 'peerLost', role: 'engine', index: 0, generation };
    for (const peer of this.welcomed) this.frontendLink?.send(peer, lost);
  }

  stop(): void {
    clearInterval(this.timer);
    this.frontendLink?.close();
    this.engineLink?.close();
  }

  private fromEngine(peer: PeerId, message: AnyMessage): void {
    const { token, generation } = this.options;
    if (message.kind === 'hello') {
      const hello = checkHello(message, { token, roles: ['engine'] });
      if (hello.kind === 'refused') {
        this.engineLink!.refuse(peer, hello);
        return;
      }
      this.engineLost();
      this.engine = { peer, generation: hello.generation };
      this.engineLink!.send(peer, welcomeOf(generation));
      return;
    }
    if (this.engine?.peer !== peer) throw new WireError(`${message.kind} before hello`);
    const fromEngine = message as unknown as Exclude<EngineToDetokenizer, Hello>;
    switch (fromEngine.kind) {
      case 'frontendJoined': {
        const { frontendId, attachKey } = fromEngine;
        this.detokenizer.frontendJoined(frontendId, attachKey);
        for (const [early, attach] of this.attachments.take(frontendId)) this.attach(early, attach);
        return;
      }
      case 'frontendLeft':
        this.detokenizer.frontendLeft(fromEngine.frontendId);
        return;
      case 'tokenOutputs':
        // What an engine before this one left in the socket is nobody's.
        if (fromEngine.generation !== this.engine.generation) return;
        this.detokenizer.tokenOutputs(fromEngine);
        this.acknowledge(peer, fromEngine.step);
        return;
      default:
        throw new WireError(`unknown message ${message.kind}`);
    }
  }

  private acknowledge(peer: PeerId, step: number): void {
    const ack: Ack = { kind: 'ack', step };
    this.engineLink!.send(peer, ack);
  }

  private fromFrontend(peer: PeerId, message: AnyMessage): void {
    if (message.kind === 'hello') {
      this.welcome(peer, message);
      return;
    }
    if (!this.welcomed.has(peer)) throw new WireError(`${message.kind} before hello`);
    switch (message.kind) {
      case 'attach':
        this.attach(peer, checkAttach(message));
        return;
      case 'credit':
        this.credit(peer, message);
        return;
      case 'tokenize':
      case 'applyChatTemplate':
      case 'detokenize':
        this.calls.handle(peer, message);
        return;
      default:
        throw new WireError(`unknown message ${message.kind}`);
    }
  }

  private welcome(peer: PeerId, message: AnyMessage): void {
    const { token, generation } = this.options;
    const hello = checkHello(message, { token, roles: ['frontend', 'client'] });
    if (hello.kind === 'refused') {
      this.frontendLink!.refuse(peer, hello);
      return;
    }
    this.welcomed.add(peer);
    this.frontendLink!.send(peer, welcomeOf(generation));
  }

  private attach(peer: PeerId, attach: Attach): void {
    const { frontendId, creditBytes } = attach;
    const key = this.detokenizer.attachKeyOf(frontendId);
    switch (this.attachments.judge(peer, attach, key, performance.now())) {
      case 'attached':
        this.frontendLink!.send(peer, attachedAs(frontendId));
        this.detokenizer.attach(frontendId, peer, creditBytes);
        return;
      case 'refused':
        this.refuse(peer, `may not attach as frontend ${frontendId}`);
        return;
      case 'waiting':
        return;
    }
  }

  private credit(peer: PeerId, message: AnyMessage): void {
    const { bytes } = message;
    if (!isU32(bytes)) throw new WireError('credit: bytes is not an unsigned integer');
    const columns = checkColumns(message.columns ?? {}, creditColumns);
    if (columns.requestId.length !== columns.bytes.length)
      throw new WireError('credit: the columns differ in length');
    this.detokenizer.credit(peer, bytes, columns.requestId, columns.bytes);
  }

  private refuse(peer: PeerId, reason: string): void {
    const refused: Refused = {
      kind: 'refused',
      message: reason,
      protocol: protocolVersion,
      build: null,
    };
    this.frontendLink!.refuse(peer, refused);
    this.frontendGone(peer);
  }

  private frontendGone(peer: PeerId): void {
    this.welcomed.delete(peer);
    this.attachments.peerGone(peer);
    this.calls.peerGone(peer);
    this.detokenizer.peerGone(peer);
  }

  private tick(): void {
    for (const [peer] of this.attachments.takeExpired(performance.now()))
      this.refuse(peer, 'the engine knows no such frontend');
    this.detokenizer.tick();
  }
}

function welcomeOf(generation: number): DetokenizerWelcome {
  return { kind: 'welcome', protocol: protocolVersion, generation };
}

function attachedAs(frontendId: number): Attached {
  return { kind: 'attached', frontendId };
}

function checkAttach(message: AnyMessage): Attach {
  const { frontendId, attachKey, creditBytes } = message;
  if (!isU32(frontendId)) throw new WireError('attach: frontendId is not an unsigned integer');
  if (typeof attachKey !== 'string') throw new WireError('attach: attachKey is not a string');
  if (!isU32(creditBytes)) throw new WireError('attach: creditBytes is not an unsigned integer');
  return { kind: 'attach', frontendId, attachKey, creditBytes };
}
