// The engine's door for workers: one peer a rank, the newest generation. A peer of an older
// generation, or one that was given up, is not heard any more.
import type { Logger } from '../common/log.ts';
import { checkHello } from '../common/wire/handshake.ts';
import {
  protocolVersion,
  type EngineToWorker,
  type WorkerToEngine,
  type WorkerWelcome,
} from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import type { AnyMessage, PeerId, RouterEvents, RouterLink } from '../common/wire/transport.ts';
import { encodeMessage } from '../common/wire/codec.ts';

export interface WorkerLinksOptions {
  readonly token: string;
  readonly log: Logger;
  readonly generation: number;
  readonly numWorkers: number;
  /** A worker has connected; false refuses it. */
  readonly joined: (rank: number, generation: number) => boolean;
  /** May throw WireError. */
  readonly message: (rank: number, message: WorkerToEngine) => void;
  /** Its connection is gone, or it sent what is no message. */
  readonly left: (rank: number, reason: string) => void;
}

export class WorkerLinks implements RouterEvents {
  link: RouterLink | null = null;
  private readonly options: WorkerLinksOptions;
  private readonly peers: (PeerId | null)[];

  constructor(options: WorkerLinksOptions) {
    this.options = options;
    this.peers = new Array<PeerId | null>(options.numWorkers).fill(null);
  }

  /** To every rank; encoded once. */
  sendAll(message: EngineToWorker): void {
    const frames = encodeMessage(message);
    for (const peer of this.peers) if (peer !== null) this.link?.sendFrames(peer, frames);
  }

  /** Hears no rank any more, until another of it connects. */
  forgetAll(): void {
    this.peers.fill(null);
  }

  message(peer: PeerId, any: AnyMessage): void {
    const rank = this.peers.indexOf(peer);
    if (any.kind === 'hello') this.hello(peer, any);
    else if (rank >= 0) this.options.message(rank, receive('workerToEngine', any));
  }

  disconnected(peer: PeerId): void {
    this.lose(peer, 'its connection is gone');
  }

  rejected(peer: PeerId, error: Error): void {
    this.lose(peer, error.message);
  }

  private hello(peer: PeerId, any: AnyMessage): void {
    const { token, generation, log } = this.options;
    const hello = checkHello(any, { token, roles: ['worker'] });
    if (hello.kind === 'refused') {
      log.warn({ reason: hello.message }, 'a worker was refused');
      this.link?.refuse(peer, hello);
      return;
    }
    if (!this.options.joined(hello.index, hello.generation)) return;
    this.peers[hello.index] = peer;
    const welcome: WorkerWelcome = { kind: 'welcome', protocol: protocolVersion, generation };
    this.link?.send(peer, welcome);
  }

  private lose(peer: PeerId, reason: string): void {
    const rank = this.peers.indexOf(peer);
    if (rank < 0) return;
    this.peers[rank] = null;
    this.options.left(rank, reason);
  }
}
