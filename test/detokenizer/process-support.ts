// Starts the detokenizer process under a supervisor of three lines, and gives the test its engine
// and frontends: links that keep what they hear until the test asks for it.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DetokenizerSlice } from '../../common/config.ts';
import { defaultReaderLimits, defaultTextLimits } from '../../common/limits.ts';
import { processEnv } from '../../common/process.ts';
import type { WireMessage } from '../../common/wire/codec.ts';
import { makeHello } from '../../common/wire/handshake.ts';
import { DealerLink, RouterLink, type AnyMessage } from '../../common/wire/transport.ts';
import { demoPath } from './support.ts';

export const token = 'f00d';
const limitMs = 180_000;

/** One end of a link, with what it has heard. */
export class Peer {
  readonly link: DealerLink;
  readonly heard: AnyMessage[] = [];
  private wake: (() => void) | null = null;

  constructor(address: string, hello: WireMessage) {
    this.link = new DealerLink(address, hello, {
      message: (message) => {
        this.heard.push(message);
        this.wake?.();
      },
      rejected: (error) => {
        throw error;
      },
    });
  }

  send(message: WireMessage & Record<string, unknown>): void {
    this.link.send(message);
  }

  /** Takes out the next message for which `is` holds; earlier ones stay. */
  async next(is: string | ((message: AnyMessage) => boolean)): Promise<AnyMessage> {
    const matches = typeof is === 'string' ? (m: AnyMessage) => m.kind === is : is;
    const until = Date.now() + limitMs;
    for (;;) {
      const at = this.heard.findIndex(matches);
      if (at >= 0) return this.heard.splice(at, 1)[0]!;
      const left = until - Date.now();
      if (left <= 0)
        throw new Error(`no ${String(is)}; heard ${this.heard.map((m) => m.kind).join(', ')}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

export class DetokenizerProcess {
  readonly child: ChildProcess;
  readonly engineAddress: string;
  readonly frontendAddress: string;
  readonly exited: Promise<number | null>;
  private readonly supervisor: RouterLink;
  private readonly send: (message: WireMessage) => void;
  private readonly runDir: string;
  private readonly peers: Peer[] = [];

  /** Resolves when the process is ready. */
  static async start(slice: Partial<DetokenizerSlice> = {}): Promise<DetokenizerProcess> {
    const runDir = mkdtempSync(join(tmpdir(), 'vt-'));
    const config: DetokenizerSlice = {
      runDir,
      generation: 7,
      logLevel: 'error',
      logFormat: 'text',
      tokenizerPath: demoPath,
      chatTemplatePath: null,
      engineListen: { address: `ipc://${runDir}/e.sock`, curve: null },
      frontendListen: { address: `ipc://${runDir}/f.sock`, curve: null },
      maxModelLen: 2048,
      textLimits: defaultTextLimits,
      readerLimits: defaultReaderLimits,
      ...slice,
    };
    let ready!: () => void;
    let failed!: (error: Error) => void;
    const started = new Promise<void>((resolve, reject) => {
      ready = resolve;
      failed = reject;
    });
    let peerId = '';
    const supervisor = await RouterLink.bind(`ipc://${runDir}/s.sock`, {
      message: (peer, message) => {
        peerId = peer;
        if (message.kind === 'hello') {
          const answer = { kind: 'config', config: config as unknown as Record<string, unknown> };
          supervisor.send(peer, answer);
        } else if (message.kind === 'ready') ready();
        else failed(new Error(JSON.stringify(message)));
      },
      disconnected: () => undefined,
      rejected: (_, error) => failed(error),
    });
    const running = new DetokenizerProcess(runDir, config, supervisor, (message) =>
      supervisor.send(peerId, message),
    );
    try {
      await Promise.race([
        started,
        running.exited.then((code) => {
          throw new Error(`the process has ended (${code}) before it was ready`);
        }),
      ]);
    } catch (error) {
      await running.exited;
      running.clear();
      throw error;
    }
    return running;
  }

  private constructor(
    runDir: string,
    slice: DetokenizerSlice,
    supervisor: RouterLink,
    send: (message: WireMessage) => void,
  ) {
    this.runDir = runDir;
    this.supervisor = supervisor;
    this.send = send;
    this.engineAddress = slice.engineListen.address;
    this.frontendAddress = slice.frontendListen.address;
    const main = fileURLToPath(new URL('../../detokenizer/main.js', import.meta.url));
    this.child = spawn(process.execPath, [main], {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: {
        ...process.env,
        [processEnv.address]: supervisor.address,
        [processEnv.token]: token,
        [processEnv.index]: '0',
        [processEnv.generation]: '7',
      },
    });
    this.exited = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)));
  }

  async engine(): Promise<Peer> {
    const peer = new Peer(this.engineAddress, makeHello('engine', 0, 1, token));
    this.peers.push(peer);
    await peer.next('welcome');
    return peer;
  }

  connect(hello: WireMessage = makeHello('client', 0, 0, token)): Peer {
    const peer = new Peer(this.frontendAddress, hello);
    this.peers.push(peer);
    return peer;
  }

  /** A foreign frontend that has attached. */
  async attached(engine: Peer, frontendId: number, creditBytes = 1 << 20): Promise<Peer> {
    const peer = this.connect();
    await peer.next('welcome');
    engine.send({ kind: 'frontendJoined', frontendId, attachKey: `key ${frontendId}` });
    peer.send({ kind: 'attach', frontendId, attachKey: `key ${frontendId}`, creditBytes });
    await peer.next('attached');
    return peer;
  }

  tell(message: WireMessage): void {
    this.send(message);
  }

  async stop(): Promise<number | null> {
    this.send({ kind: 'stop' });
    const code = await this.exited;
    this.clear();
    return code;
  }

  private clear(): void {
    for (const { link } of this.peers) link.close();
    this.supervisor.close();
    rmSync(this.runDir, { recursive: true, force: true });
  }
}
