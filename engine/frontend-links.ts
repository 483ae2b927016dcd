// The engine's door for frontends: who is connected, by which id, and what they may say. Messages of
// a peer that has not said hello, or that are malformed, cost that peer its connection only.
import { randomBytes } from 'node:crypto';
import { RequestError, WireError, type ErrorInfo } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import { encodeMessage } from '../common/wire/codec.ts';
import { checkHello } from '../common/wire/handshake.ts';
import {
  type EngineStatus,
  type EngineToFrontend,
  type EngineWelcome,
  type Utility,
} from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import type { AnyMessage, PeerId, RouterEvents, RouterLink } from '../common/wire/transport.ts';
import type { EngineCore } from './engine-core.ts';

interface Frontend {
  readonly frontendId: number;
  readonly peer: PeerId;
  readonly attachKey: string;
  /** One of our own, which reads whatever comes. */
  readonly isOurs: boolean;
  /** It had open requests when the last status went out. */
  hadRequests: boolean;
}

export interface FrontendLinksOptions {
  readonly token: string;
  readonly log: Logger;
  /** What every welcome says, but for whom it is. */
  readonly welcome: () => Omit<EngineWelcome, 'kind' | 'frontendId' | 'attachKey'>;
  /** The counters so far, for one of our own that has just come. */
  readonly status: () => EngineStatus;
  readonly joined: (frontendId: number, attachKey: string) => void;
  readonly left: (frontendId: number) => void;
  /** Throws RequestError. */
  readonly utility: (method: string, args: Readonly<Record<string, unknown>>) => unknown;
}

export class FrontendLinks implements RouterEvents {
  link: RouterLink | null = null;
  private core: EngineCore | null = null;
  private readonly options: FrontendLinksOptions;
  private readonly byPeer = new Map<PeerId, Frontend>();
  private readonly byId = new Map<number, Frontend>();
  /** Hellos from before the engine can welcome anybody. */
  private early: { readonly peer: PeerId; readonly message: AnyMessage }[] = [];
  private numJoined = 0;

  constructor(options: FrontendLinksOptions) {
    this.options = options;
  }

  /** From now on frontends are welcome. */
  open(core: EngineCore): void {
    this.core = core;
    const { early } = this;
    this.early = [];
    for (const { peer, message } of early) this.message(peer, message);
  }

  send(frontendId: number, message: EngineToFrontend): void {
    const frontend = this.byId.get(frontendId);
    if (frontend) this.link?.send(frontend.peer, message);
  }

  sendAll(message: EngineToFrontend): void {
    const frames = encodeMessage(message);
    for (const { peer } of this.byPeer.values()) this.link?.sendFrames(peer, frames);
  }

  /**
   * A stranger gets it while it has open requests, and once after: who does not read loses those
   * soon (slow_reader), and must not collect this for ever.
   */
  sendStatus(message: EngineStatus): void {
    const frames = encodeMessage(message);
    for (const frontend of this.byPeer.values()) {
      const hasRequests = this.core!.requests.has(frontend.frontendId);
      if (frontend.isOurs || hasRequests || frontend.hadRequests)
        this.link?.sendFrames(frontend.peer, frames);
      frontend.hadRequests = hasRequests;
    }
  }

  /** (frontendId, attachKey) of all, for a detokenizer that is new. */
  get all(): Iterable<{ readonly frontendId: number; readonly attachKey: string }> {
    return this.byPeer.values();
  }

  message(peer: PeerId, message: AnyMessage): void {
    if (!this.core) {
      if (this.early.some((entry) => entry.peer === peer))
        throw new WireError(`${message.kind} before welcome`);
      this.early.push({ peer, message });
      return;
    }
    const frontend = this.byPeer.get(peer);
    if (!frontend || message.kind === 'hello') this.hello(peer, message, frontend);
    else this.obey(this.core, frontend, message);
  }

  disconnected(peer: PeerId): void {
    this.early = this.early.filter((entry) => entry.peer !== peer);
    const frontend = this.byPeer.get(peer);
    if (!frontend) return;
    this.byPeer.delete(peer);
    this.byId.delete(frontend.frontendId);
    this.core?.frontendLeft(frontend.frontendId);
    this.options.left(frontend.frontendId);
  }

  rejected(peer: PeerId, error: WireError): void {
    this.options.log.warn({ error: error.message }, 'a frontend sent a malformed message');
    this.disconnected(peer);
  }

  private hello(peer: PeerId, message: AnyMessage, known: Frontend | undefined): void {
    const hello = checkHello(message, {
      token: this.options.token,
      roles: ['frontend', 'client'],
    });
    if (hello.kind === 'refused') {
      this.options.log.warn({ reason: hello.message }, 'a frontend was refused');
      this.link?.refuse(peer, hello);
      this.disconnected(peer);
      return;
    }
    const frontend = known ?? this.join(peer, hello.role === 'frontend');
    const { frontendId, attachKey } = frontend;
    this.send(frontendId, { kind: 'welcome', frontendId, attachKey, ...this.options.welcome() });
    // What /metrics says does not begin again with a frontend that was replaced.
    if (frontend.isOurs) this.send(frontendId, this.options.status());
  }

  private join(peer: PeerId, isOurs: boolean): Frontend {
    const frontendId = ++this.numJoined;
    const attachKey = randomBytes(16).toString('hex');
    const frontend = { frontendId, peer, attachKey, isOurs, hadRequests: false };
    this.byPeer.set(peer, frontend);
    this.byId.set(frontendId, frontend);
    this.core?.frontendJoined(frontendId);
    this.options.joined(frontendId, frontend.attachKey);
    return frontend;
  }

  private obey(core: EngineCore, { frontendId }: Frontend, any: AnyMessage): void {
    const message = receive('frontendToEngine', any);
    switch (message.kind) {
      case 'hello':
        return;
      case 'addRequest':
        core.addRequest(frontendId, message);
        return;
      case 'abort':
        core.abort(frontendId, message.columns.requestId);
        return;
      case 'utility':
        this.answer(frontendId, message);
        return;
    }
  }

  private answer(frontendId: number, { callId, method, args }: Utility): void {
    let result: unknown = null;
    let error: ErrorInfo | null = null;
    try {
      result = this.options.utility(method, args);
    } catch (thrown) {
      if (!(thrown instanceof RequestError)) throw thrown;
      error = thrown.info();
    }
    this.send(frontendId, { kind: 'utilityReply', callId, result, error });
  }
}
