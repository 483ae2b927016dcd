// The real engine process with fake workers, each a process of its own, over real sockets. The
// harness plays supervisor, detokenizer and frontend; a test or a measurement drives it.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SchedulerConfig } from '../common/config.ts';
import { defaultRequestLimits } from '../common/limits.ts';
import { packageRoot } from '../common/package-root.ts';
import { parentPipeFd, processEnv } from '../common/process.ts';
import { makeHello } from '../common/wire/handshake.ts';
import type {
  DetokenizerToEngine,
  EngineToDetokenizer,
  EngineToFrontend,
  EngineWelcome,
  FrontendToEngine,
  ProcessToSupervisor,
  Ready,
  ReplacePeer,
  SupervisorToProcess,
  TokenOutputs,
} from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import { DealerLink, RouterLink, type PeerId } from '../common/wire/transport.ts';
import { defaultScheduler } from './virtual-server.ts';

export interface HarnessOptions {
  readonly scheduler?: Partial<SchedulerConfig>;
  /** As asyncDepth unless it says otherwise. */
  readonly leastAsyncDepth?: number;
  readonly stepTimeoutMs?: number;
  /** For the fake workers; see scripts/fake-worker.ts. */
  readonly workerEnv?: Readonly<Record<string, string>>;
  readonly vocabSize?: number;
  readonly enableDebugTimeline?: boolean;
  /** Whether what the detokenizer gets is kept (default true). */
  readonly keepOutputs?: boolean;
  readonly fitModelLen?: boolean;
}

export const harnessToken = 'harness';
const vocabSizeDefault = 101;

/** Waits for events; a predicate is looked at again after each one. */
class Waiter {
  private readonly waiting = new Set<() => void>();

  wake(): void {
    for (const look of [...this.waiting]) look();
  }

  async until<T>(find: () => T | undefined | false, what: string, limitMs = 180_000): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(look);
        reject(new Error(`waited ${limitMs} ms for ${what}`));
      }, limitMs);
      const look = () => {
        const found = find();
        if (found === undefined || found === false) return;
        clearTimeout(timer);
        this.waiting.delete(look);
        resolve(found);
      };
      this.waiting.add(look);
      look();
    });
  }
}

/** A frontend's DEALER, with everything that the engine has said to it. */
export class HarnessFrontend {
  readonly messages: EngineToFrontend[] = [];
  readonly link: DealerLink;
  private readonly waiter: Waiter;

  constructor(
    address: string,
    waiter: Waiter,
    helloToken = harnessToken,
    role: 'client' | 'frontend' = 'client',
  ) {
    this.waiter = waiter;
    this.link = new DealerLink(address, makeHello(role, 0, 0, helloToken), {
      message: (raw) => {
        this.messages.push(receive('engineToFrontend', raw));
        waiter.wake();
      },
      rejected: (error) => {
        throw error;
      },
    });
  }

  send(message: FrontendToEngine): void {
    this.link.send(message);
  }

  find<K extends EngineToFrontend['kind']>(
    kind: K,
    test: (message: Extract<EngineToFrontend, { kind: K }>) => boolean = () => true,
  ): Promise<Extract<EngineToFrontend, { kind: K }>> {
    type Wanted = Extract<EngineToFrontend, { kind: K }>;
    const isWanted = (m: EngineToFrontend): m is Wanted => m.kind === kind && test(m as Wanted);
    return this.waiter.until(() => this.messages.find(isWanted), kind);
  }

  get welcome(): Promise<EngineWelcome> {
    return this.find('welcome');
  }
}

export class EngineHarness {
  readonly outputs: TokenOutputs[] = [];
  readonly detokenizerMessages: EngineToDetokenizer[] = [];
  readonly replacements: ReplacePeer[] = [];
  readonly ready = new Map<string, Ready>();
  readonly waiter = new Waiter();
  onOutputs: ((message: TokenOutputs) => void) | null = null;
  /** Whether TokenOutputs are acknowledged as they come. */
  acknowledge = true;
  exitCode: number | null = null;
  private readonly options: HarnessOptions;
  private readonly runDir: string;
  private readonly children = new Map<string, ChildProcess>();
  private readonly peers = new Map<string, PeerId>();
  private readonly frontends: HarnessFrontend[] = [];
  private control!: RouterLink;
  private detokenizer!: RouterLink;
  private enginePeer: PeerId | null = null;
  private numDrained = 0;

  private constructor(options: HarnessOptions, runDir: string) {
    this.options = options;
    this.runDir = runDir;
  }

  static async start(options: HarnessOptions = {}): Promise<EngineHarness> {
    const harness = new EngineHarness(options, mkdtempSync(join(tmpdir(), 'vt-')));
    harness.control = await RouterLink.bind(harness.address('control'), {
      message: (peer, raw) => harness.obey(peer, receive('processToSupervisor', raw)),
      disconnected: () => undefined,
      rejected: (_, error) => {
        throw error;
      },
    });
    await harness.bindDetokenizer(0);
    harness.spawn('engine', 0);
    harness.spawn('worker', 0);
    await harness.waiter.until(() => harness.ready.has('engine 0'), 'the engine to be ready');
    return harness;
  }

  frontend(helloToken?: string, role?: 'client' | 'frontend'): HarnessFrontend {
    const frontend = new HarnessFrontend(this.address('engine'), this.waiter, helloToken, role);
    this.frontends.push(frontend);
    return frontend;
  }

  /** Process ids by name: "engine 0", "worker 0". */
  get pids(): Map<string, number> {
    return new Map([...this.children].map(([name, { pid }]) => [name, pid!]));
  }

  /** Kills the worker as the supervisor would, and starts its next generation. */
  replaceWorker(generation: number): void {
    this.children.get(`worker ${generation - 1}`)!.kill('SIGKILL');
    this.spawn('worker', generation);
  }

  killWorker(generation: number): void {
    this.children.get(`worker ${generation}`)!.kill('SIGKILL');
  }

  /** The detokenizer dies and comes back under a new address. */
  async replaceDetokenizer(generation: number): Promise<void> {
    this.detokenizer.close();
    const peer = { role: 'detokenizer', index: 0 } as const;
    this.tell('engine 0', { kind: 'peerLost', ...peer, generation: generation - 1 });
    await this.bindDetokenizer(generation);
    const addresses = { engine: this.address(`detokenizer${generation}`), frontend: '' };
    this.tell('engine 0', { kind: 'peerReady', ...peer, generation, addresses });
  }

  toEngine(message: DetokenizerToEngine): void {
    if (this.enginePeer !== null) this.detokenizer.send(this.enginePeer, message);
  }

  async drain(timeoutMs: number): Promise<void> {
    const before = this.numDrained;
    this.tell('engine 0', { kind: 'drain', timeoutMs });
    await this.waiter.until(() => this.numDrained > before, 'drained');
  }

  async stop(): Promise<void> {
    for (const frontend of this.frontends) frontend.link.close();
    for (const [name, child] of this.children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exited = once(child, 'exit');
      this.tell(name, { kind: 'stop' });
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
      await exited;
      clearTimeout(timer);
    }
    this.exitCode = this.children.get('engine 0')!.exitCode;
    this.control.close();
    this.detokenizer.close();
    rmSync(this.runDir, { recursive: true, force: true });
  }

  private obey(peer: PeerId, message: ProcessToSupervisor): void {
    switch (message.kind) {
      case 'hello': {
        const name = `${message.role} ${message.generation}`;
        this.peers.set(name, peer);
        this.tell(name, { kind: 'config', config: this.slice(message.role, message.generation) });
        return;
      }
      case 'ready':
        this.ready.set(`${message.role} ${message.generation}`, message);
        break;
      case 'replacePeer':
        this.replacements.push(message);
        break;
      case 'drained':
        this.numDrained++;
        break;
      case 'alive':
        return;
      case 'fatal':
        throw new Error(`a process ended itself: ${message.message}`);
    }
    this.waiter.wake();
  }

  private async bindDetokenizer(generation: number): Promise<void> {
    const name = generation === 0 ? 'detokenizer' : `detokenizer${generation}`;
    this.detokenizer = await RouterLink.bind(this.address(name), {
      message: (peer, raw) => this.detokenize(peer, receive('engineToDetokenizer', raw)),
      disconnected: () => undefined,
      rejected: (_, error) => {
        throw error;
      },
    });
  }

  private detokenize(peer: PeerId, message: EngineToDetokenizer): void {
    if (message.kind === 'hello') {
      this.enginePeer = peer;
      this.toEngine({ kind: 'welcome', protocol: message.protocol, generation: 0 });
      return;
    }
    const isKept = this.options.keepOutputs ?? true;
    if (isKept) this.detokenizerMessages.push(message);
    if (message.kind === 'tokenOutputs') {
      if (isKept) this.outputs.push(message);
      this.onOutputs?.(message);
      if (this.acknowledge) this.toEngine({ kind: 'ack', step: message.step });
    }
    this.waiter.wake();
  }

  private spawn(role: 'engine' | 'worker', generation: number): void {
    const entry = role === 'engine' ? 'engine/main.js' : 'scripts/fake-worker.js';
    const child = spawn(process.execPath, [...process.execArgv, join(packageRoot, 'dist', entry)], {
      // The last: with its end, and the harness's, the process ends too.
      stdio: ['ignore', 2, 2, 'pipe'],
      env: {
        ...process.env,
        ...this.options.workerEnv,
        [processEnv.address]: this.address('control'),
        [processEnv.token]: harnessToken,
        [processEnv.index]: '0',
        [processEnv.generation]: String(generation),
        [processEnv.parent]: String(process.pid),
      },
    });
    child.stdio[parentPipeFd]?.on('error', () => undefined);
    this.children.set(`${role} ${generation}`, child);
  }

  private tell(name: string, message: SupervisorToProcess): void {
    const peer = this.peers.get(name);
    if (peer !== undefined) this.control.send(peer, message);
  }

  private address(name: string): string {
    return `ipc://${join(this.runDir, name)}`;
  }

  private slice(role: string, generation: number): Record<string, unknown> {
    const scheduler = { ...defaultScheduler, ...this.options.scheduler };
    const vocabSize = this.options.vocabSize ?? vocabSizeDefault;
    const common = {
      runDir: this.runDir,
      generation,
      logLevel: 'error',
      logFormat: 'text',
    };
    if (role === 'worker')
      return {
        ...common,
        ...scheduler,
        rank: 0,
        numRanks: 1,
        engineAddress: this.address('workers'),
        model: { vocabSize },
      };
    return {
      ...common,
      scheduler,
      leastAsyncDepth: this.options.leastAsyncDepth ?? scheduler.asyncDepth,
      fitModelLen: this.options.fitModelLen ?? false,
      model: { name: 'fake', vocabSize, eosTokenIds: [2] },
      maxLogprobs: 20,
      limits: defaultRequestLimits,
      numWorkers: 1,
      frontendListen: { address: this.address('engine'), curve: null },
      workerListen: { address: this.address('workers'), curve: null },
      detokenizerAddress: this.address('detokenizer'),
      stepTimeoutMs: this.options.stepTimeoutMs ?? 60_000,
      disableLogStats: true,
      enableDebugTimeline: this.options.enableDebugTimeline ?? false,
      defaultSeed: 0,
      defaultSampling: {},
    };
  }
}
