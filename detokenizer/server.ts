// The detokenizer with its two links: what the engine says becomes text for frontends, what they
// grant lets it go.
import type { DetokenizerSlice } from '../common/config.ts';
import type { PeerLost } from '../common/wire/messages.ts';
import { Detokenizer } from './detokenizer.ts';
import { EngineLink } from './engine-link.ts';
import { FrontendLink, type FrontendLinkOptions } from './frontend-link.ts';

export interface ServerOptions extends FrontendLinkOptions {
  readonly slice: DetokenizerSlice;
  /** The engine spoke nonsense. */
  fatal(error: unknown): void;
}

const tickMs = 1000;

export class DetokenizerServer {
  private readonly detokenizer: Detokenizer;
  private readonly engine: EngineLink;
  private readonly frontends: FrontendLink;
  private readonly timer: NodeJS.Timeout;

  /** Binds both links. */
  static async start(options: ServerOptions): Promise<DetokenizerServer> {
    const server = new DetokenizerServer(options);
    try {
      await server.engine.bind(options.slice.engineListen);
      await server.frontends.bind(options.slice.frontendListen);
    } catch (error) {
      server.stop();
      throw error;
    }
    return server;
  }

  private constructor(options: ServerOptions) {
    const { slice, token, generation, log, text } = options;
    const { table } = text.tokenizer;
    const about = {
      ...{ table, generation, readers: slice.readerLimits },
      now: () => performance.now(),
    };
    const detokenizer = new Detokenizer(about, {
      textOutputs: (peer, message) => this.frontends.send(peer, message),
      stopRequest: (message) => this.engine.stop(message),
      dropFrontend: (peer, frontendId) => {
        log.warn({ frontendId }, 'dropped a frontend that reads nothing');
        if (peer !== null) this.frontends.refuse(peer, 'the frontend reads nothing');
      },
    });
    this.detokenizer = detokenizer;
    this.engine = new EngineLink(token, generation, {
      frontendJoined: ({ frontendId, attachKey }) => {
        detokenizer.frontendJoined(frontendId, attachKey);
        this.frontends.introduced(frontendId);
      },
      frontendLeft: ({ frontendId }) => detokenizer.frontendLeft(frontendId),
      tokenOutputs: (message) => detokenizer.tokenOutputs(message),
      lost: (engineGeneration) => this.dropRequests(engineGeneration),
      fatal: (error) => options.fatal(error),
    });
    this.frontends = new FrontendLink(options, {
      attachKeyOf: (frontendId) => detokenizer.attachKeyOf(frontendId),
      attached: (peer, { frontendId, creditBytes }) =>
        detokenizer.attach(frontendId, peer, creditBytes),
      credit: (peer, { bytes, columns }) =>
        detokenizer.credit(peer, bytes, columns.requestId, columns.bytes),
      gone: (peer) => detokenizer.peerGone(peer),
    });
    this.timer = setInterval(() => {
      this.frontends.tick();
      detokenizer.tick();
    }, tickMs);
  }

  /** The supervisor says that the engine is gone. */
  engineLost(): void {
    this.engine.lost();
  }

  stop(): void {
    clearInterval(this.timer);
    this.frontends.close();
    this.engine.close();
  }

  /** Every request went with the engine; a frontend may have nobody else to learn it from. */
  private dropRequests(generation: number): void {
    this.detokenizer.reset();
    const lost: PeerLost = { kind: 'peerLost', role: 'engine', index: 0, generation };
    this.frontends.sendToAll(lost);
  }
}
