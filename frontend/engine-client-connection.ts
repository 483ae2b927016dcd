// The two links of a frontend and their handshakes: hello and welcome with the engine, then hello,
// welcome, attach and attached with the detokenizer. Knows when both are up and when one is lost;
// what their messages mean is EngineClient's business.
import { exitCodes, StartError } from '../common/errors.ts';
import { makeHello } from '../common/wire/handshake.ts';
import type {
  Attach,
  DetokenizerToFrontend,
  EngineToFrontend,
  EngineWelcome,
  FrontendToDetokenizer,
  FrontendToEngine,
  Refused,
} from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import { clientCurve, DealerLink, type CurveKeys } from '../common/wire/transport.ts';
import type { ResolvedOptions } from './engine-client-options.ts';

export type LostRole = 'engine' | 'detokenizer';

export interface ConnectionEvents {
  /** Both ends have welcomed us; again after each loss. */
  up(info: EngineWelcome): void;
  lost(role: LostRole, generation: number): void;
  refused(error: StartError): void;
  engineMessage(message: EngineToFrontend): void;
  detokenizerMessage(message: DetokenizerToFrontend): void;
}

export class Connection {
  private readonly options: ResolvedOptions;
  private readonly events: ConnectionEvents;
  private readonly engineCurve: CurveKeys | undefined;
  private readonly detokenizerCurve: CurveKeys | undefined;
  private detokenizerAddress: string;
  private engine: DealerLink | null = null;
  private detokenizer: DealerLink | null = null;
  private info: EngineWelcome | null = null;
  /** Generation of the detokenizer that welcomed us; null = not welcomed. */
  private detokenizerGeneration: number | null = null;
  /** Generation of the detokenizer that we were last told to attach to. */
  private nextGeneration: number | null = null;
  private attached = false;

  constructor(options: ResolvedOptions, events: ConnectionEvents) {
    this.options = options;
    this.events = events;
    this.engineCurve = clientCurve(options.engineKey);
    this.detokenizerCurve = clientCurve(options.detokenizerKey);
    this.detokenizerAddress = options.detokenizer;
    this.openEngine();
  }

  /** What is missing, or null when requests can be sent. */
  get missing(): LostRole | null {
    if (!this.info) return 'engine';
    return this.attached ? null : 'detokenizer';
  }

  toEngine(message: FrontendToEngine): void {
    this.engine?.send(message);
  }

  toDetokenizer(message: FrontendToDetokenizer): void {
    if (this.attached) this.detokenizer?.send(message);
  }

  /** Somebody says that this peer is gone; other generations are none of ours. */
  peerLost(role: LostRole, generation: number): void {
    if (role === 'engine' && generation === this.info?.generation) this.loseEngine();
    if (role === 'detokenizer' && generation === this.detokenizerGeneration) {
      this.closeDetokenizer();
      this.events.lost(role, generation);
    }
  }

  /** A detokenizer of this generation serves at `address`. */
  reattach(address: string, generation: number): void {
    const old = this.detokenizerGeneration;
    if (generation === old || generation === this.nextGeneration) return;
    this.nextGeneration = generation;
    this.closeDetokenizer();
    if (old !== null) this.events.lost('detokenizer', old);
    this.detokenizerAddress = address;
    if (this.info) this.openDetokenizer(this.info);
  }

  close(): void {
    this.engine?.close();
    this.detokenizer?.close();
  }

  private openEngine(): void {
    const { options } = this;
    const link = new DealerLink(
      options.engine,
      makeHello(options.role, options.index, options.generation, options.token),
      {
        message: (message) => this.onEngine(receive('engineToFrontend', message)),
        disconnected: () => this.loseEngine(),
        rejected: () => {
          // Whose messages cannot be read cannot be relied on: begin again.
          link.close();
          this.loseEngine();
          this.openEngine();
        },
      },
      this.engineCurve,
    );
    this.engine = link;
  }

  private onEngine(message: EngineToFrontend): void {
    if (message.kind === 'welcome') {
      this.info = message;
      this.openDetokenizer(message);
    } else if (message.kind === 'refused') this.refused('engine', message);
    else this.events.engineMessage(message);
  }

  private loseEngine(): void {
    const { info } = this;
    this.info = null;
    this.closeDetokenizer();
    if (info) this.events.lost('engine', info.generation);
  }

  private openDetokenizer(info: EngineWelcome): void {
    const { options } = this;
    const link = new DealerLink(
      this.detokenizerAddress,
      makeHello(options.role, options.index, options.generation, options.token),
      {
        message: (message) => this.onDetokenizer(info, receive('detokenizerToFrontend', message)),
        // The link itself tries again, with a new hello.
        disconnected: () => this.loseDetokenizer(),
        rejected: () => {
          this.detokenizer?.close();
          this.loseDetokenizer();
          if (this.info) this.openDetokenizer(this.info);
        },
      },
      this.detokenizerCurve,
    );
    this.detokenizer = link;
  }

  private onDetokenizer(info: EngineWelcome, message: DetokenizerToFrontend): void {
    switch (message.kind) {
      case 'welcome': {
        this.detokenizerGeneration = message.generation;
        const attach: Attach = {
          kind: 'attach',
          frontendId: info.frontendId,
          attachKey: info.attachKey,
          creditBytes: this.options.creditBytes,
        };
        this.detokenizer?.send(attach);
        return;
      }
      case 'attached':
        this.attached = true;
        this.events.up(info);
        return;
      case 'refused':
        this.refused('detokenizer', message);
        return;
      case 'textOutputs':
        if (message.generation !== this.detokenizerGeneration) return;
        this.events.detokenizerMessage(message);
        return;
      case 'textReply':
      case 'peerLost':
        this.events.detokenizerMessage(message);
        return;
    }
  }

  private closeDetokenizer(): void {
    this.detokenizer?.close();
    this.detokenizer = null;
    this.detokenizerGeneration = null;
    this.attached = false;
  }

  private loseDetokenizer(): void {
    const generation = this.detokenizerGeneration;
    this.detokenizerGeneration = null;
    this.attached = false;
    if (generation !== null) this.events.lost('detokenizer', generation);
  }

  private refused(by: LostRole, { message }: Refused): void {
    this.close();
    this.events.refused(new StartError(exitCodes.versionMismatch, `${by}: ${message}`));
  }
}
