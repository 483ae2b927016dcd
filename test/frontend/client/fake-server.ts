// A scripted engine and detokenizer in this process, over real unix sockets. The test waits for
// what the client sends and answers as it pleases.
import { defaultRequestLimits } from '../../../common/limits.ts';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { ErrorInfo } from '../../../common/errors.ts';
import { checkHello } from '../../../common/wire/handshake.ts';
import { protocolVersion, type Attach, type EngineWelcome } from '../../../common/wire/messages.ts';
import {
  RouterLink,
  type AnyMessage,
  type CurveKeys,
  type PeerId,
} from '../../../common/wire/transport.ts';
import { EngineClient } from '../../../frontend/engine-client.ts';
import { textColumns, type TextRow } from './text-rows.ts';

export interface Received {
  readonly peer: PeerId;
  readonly message: AnyMessage;
}

/** Messages in order of arrival; `next` waits for the first of a kind that was not yet taken. */
export class Inbox {
  private readonly items: Received[] = [];
  private wake: (() => void)[] = [];

  push(item: Received): void {
    this.items.push(item);
    const { wake } = this;
    this.wake = [];
    for (const f of wake) f();
  }

  count(kind: string): number {
    return this.items.filter(({ message }) => message.kind === kind).length;
  }

  async next(kind: string): Promise<Received> {
    for (;;) {
      const i = this.items.findIndex(({ message }) => message.kind === kind);
      if (i >= 0) return this.items.splice(i, 1)[0]!;
      await new Promise<void>((resolve) => this.wake.push(resolve));
    }
  }
}

export class FakeServer {
  readonly token = 'ab'.repeat(16);
  readonly folder = mkdtempSync(join(tmpdir(), 'vt-fake-'));
  readonly engineInbox = new Inbox();
  readonly detokenizerInbox = new Inbox();
  engine!: RouterLink;
  detokenizer!: RouterLink;
  detokenizerGeneration = 0;
  /** Peers of the detokenizer by frontendId. */
  readonly attachedPeers = new Map<number, PeerId>();
  /** Peers of the engine, in order of their hello. */
  readonly enginePeers: PeerId[] = [];
  private numFrontends = 0;

  static async start(): Promise<FakeServer> {
    const server = new FakeServer();
    await server.startEngine();
    await server.startDetokenizer(0);
    return server;
  }

  get options() {
    return {
      engine: this.engine.address,
      detokenizer: this.detokenizer.address,
      token: this.token,
    };
  }

  async startEngine(address = `ipc://${this.folder}/engine.sock`, curve?: CurveKeys) {
    const known = new Set<PeerId>();
    this.engine = await RouterLink.bind(
      address,
      {
        message: (peer, message) => {
          if (known.has(peer)) {
            this.engineInbox.push({ peer, message });
            return;
          }
          const hello = checkHello(message, { token: this.token, roles: ['client', 'frontend'] });
          if (hello.kind === 'refused') {
            this.engine.refuse(peer, hello);
            return;
          }
          known.add(peer);
          this.enginePeers.push(peer);
          this.engine.send(peer, this.welcome());
        },
        disconnected: (peer) => this.engineInbox.push({ peer, message: { kind: 'left' } }),
        rejected: (peer) => this.engineInbox.push({ peer, message: { kind: 'rejected' } }),
      },
      curve ? { curve } : {},
    );
  }

  async startDetokenizer(generation: number, address?: string, curve?: CurveKeys) {
    this.detokenizerGeneration = generation;
    const known = new Set<PeerId>();
    const link = await RouterLink.bind(
      address ?? `ipc://${this.folder}/detokenizer.${generation}.sock`,
      {
        message: (peer, message) => {
          if (message.kind === 'attach') {
            const { frontendId } = message as unknown as Attach;
            this.attachedPeers.set(frontendId, peer);
            this.detokenizerInbox.push({ peer, message });
            link.send(peer, { kind: 'attached', frontendId } as never);
            return;
          }
          if (known.has(peer)) {
            this.detokenizerInbox.push({ peer, message });
            return;
          }
          const hello = checkHello(message, { token: this.token, roles: ['client', 'frontend'] });
          if (hello.kind === 'refused') {
            link.refuse(peer, hello);
            return;
          }
          known.add(peer);
          const protocol = protocolVersion;
          link.send(peer, { kind: 'welcome', protocol, generation } as never);
        },
        disconnected: (peer) => this.detokenizerInbox.push({ peer, message: { kind: 'left' } }),
        rejected: (peer) => this.detokenizerInbox.push({ peer, message: { kind: 'rejected' } }),
      },
      curve ? { curve } : {},
    );
    this.detokenizer = link;
  }

  accept(peer: PeerId, requestId: number, n: number): void {
    this.engine.send(peer, { kind: 'accepted', requestId, n } as never);
  }

  reject(peer: PeerId, requestId: number, n: number, error: ErrorInfo): void {
    this.engine.send(peer, { kind: 'rejected', requestId, n, error } as never);
  }

  text(
    frontendId: number,
    rows: readonly TextRow[],
    options: { generation?: number; errors?: { row: number; error: ErrorInfo }[] } = {},
  ): void {
    this.detokenizer.send(this.attachedPeers.get(frontendId)!, {
      kind: 'textOutputs',
      step: 1,
      generation: options.generation ?? this.detokenizerGeneration,
      errors: options.errors ?? [],
      columns: textColumns(rows),
    } as never);
  }

  close(): void {
    this.engine.close();
    this.detokenizer.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  private welcome(): EngineWelcome {
    return {
      kind: 'welcome',
      protocol: protocolVersion,
      frontendId: ++this.numFrontends,
      attachKey: `key-${this.numFrontends}`,
      generation: 0,
      model: 'fake',
      device: 'none',
      vocabSize: 100,
      maxModelLen: 64,
      maxLogprobs: 20,
      maxNumSeqs: 8,
      blockSize: 16,
      numBlocks: 32,
      eosTokenIds: [2],
      priorityScheduling: false,
      limits: defaultRequestLimits,
      defaultSampling: {},
    };
  }
}

/** A client of a new server; both end with the test. */
export async function connected(t: Test) {
  const server = await FakeServer.start();
  const client = await EngineClient.connect(server.options);
  t.teardown(() => {
    client.close();
    server.close();
  });
  return { server, client };
}
