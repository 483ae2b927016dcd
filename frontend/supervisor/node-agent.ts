// The supervisor of a node that is not the head: joins the head over TCP, starts and kills ranks at
// its word, and tells it when one has ended. It decides nothing else. Without the head its ranks
// end, and it waits for the head to come back.
import type { Memory } from '../../common/host-memory.ts';
import type { Logger } from '../../common/log.ts';
import { exitCodes, StartError } from '../../common/errors.ts';
import { makeHello } from '../../common/wire/handshake.ts';
import type { KillRank, NodeJoin, NodeToHead, StartRank } from '../../common/wire/messages.ts';
import { receive } from '../../common/wire/receive.ts';
import { clientCurve, DealerLink, type AnyMessage } from '../../common/wire/transport.ts';
import type { ExitStatus, Running } from './child.ts';
import { spawnLocal } from './local-process.ts';
import { LongWait } from './long-wait.ts';
import { nodeSilenceMs, type NodeKeys } from './node-keys.ts';

/** A head that is just ending may break a handshake; a wrong key does each time. */
const maxTurnedAway = 3;
/** What a killed rank may take to be gone. */
const killGraceMs = 2000;

export interface NodeAgentOptions {
  /** tcp://HOST:PORT of the head. */
  readonly address: string;
  readonly nodeRank: number;
  readonly keys: NodeKeys;
  /** A head that is waited for so long is given up. */
  readonly timeoutMs: number;
  /** Arguments of node that start a worker. */
  readonly workerCommand: readonly string[];
  readonly log: Logger;
  /** Asked each time the head is reached. */
  join(): Promise<NodeJoin>;
  /** Of this host, now. */
  hostMemory(): Memory;
}

interface Rank {
  readonly generation: number;
  readonly running: Running;
  /** What is to follow when it has ended. */
  next: StartRank | null;
}

export class NodeAgent {
  private readonly options: NodeAgentOptions;
  private readonly link: DealerLink;
  private readonly ranks = new Map<number, Rank>();
  private state: 'waiting' | 'joined' | 'ending' = 'waiting';
  private readonly waiting = new LongWait();
  private numTurnedAway = 0;
  private noRankIsLeft: (() => void) | null = null;
  private finish!: (exitCode: number) => void;
  /** Resolves when every rank has ended. */
  readonly outcome: Promise<number>;

  constructor(options: NodeAgentOptions) {
    this.options = options;
    this.outcome = new Promise((resolve) => (this.finish = resolve));
    const { address, nodeRank, keys } = options;
    this.link = new DealerLink(
      address,
      makeHello('node', nodeRank, 0, keys.token),
      {
        message: (message) => this.receive(message),
        rejected: (error) => void this.end(1, `the head sent what is no message: ${error.message}`),
        disconnected: () => this.headLost(),
        turnedAway: () => this.turnedAway(),
      },
      clientCurve(keys.server.publicKey),
      nodeSilenceMs,
    );
    this.wait();
  }

  get isJoined(): boolean {
    return this.state === 'joined';
  }

  /** Kills the ranks; with a message it says why. */
  async end(exitCode: number, message?: string): Promise<void> {
    if (this.state === 'ending') return;
    this.state = 'ending';
    this.waiting.end();
    const { log } = this.options;
    if (message !== undefined) {
      if (exitCode === 0) log.info(message);
      else log.fatal({ exitCode }, message);
    }
    await this.killAll();
    this.link.close();
    this.finish(exitCode);
  }

  private receive(raw: AnyMessage): void {
    const message = receive('headToNode', raw);
    if (this.state === 'ending') return;
    switch (message.kind) {
      case 'nodeWelcome':
        this.joinHead().catch((error: unknown) => {
          const why = error instanceof Error ? error.message : String(error);
          void this.end(error instanceof StartError ? error.exitCode : 1, why);
        });
        break;
      case 'refused':
        void this.end(exitCodes.versionMismatch, `the head refuses this node: ${message.message}`);
        break;
      case 'startRank':
        this.startRank(message);
        break;
      case 'killRank':
        this.killRank(message);
        break;
      case 'endNode':
        void this.end(message.exitCode, `the head ends this node: ${message.message}`);
        break;
    }
  }

  private async joinHead(): Promise<void> {
    const { options } = this;
    // What is left of another head's time, or of a connection that broke.
    await this.killAll();
    const message = await options.join();
    if (this.isEnding()) return;
    this.waiting.end();
    this.numTurnedAway = 0;
    this.state = 'joined';
    options.log.info(`joined the head at ${options.address}, ranks listen at ${message.address}`);
    this.tell(message);
  }

  private tell(message: NodeToHead): void {
    this.link.send(message);
  }

  // ------------------------------------------------------------------ ranks

  private startRank(message: StartRank): void {
    const { index, generation, token } = message;
    const before = this.ranks.get(index);
    if (before) {
      // Its sockets are free when it has ended.
      before.next = message;
      before.running.kill();
      return;
    }
    const { address, keys, workerCommand: command } = this.options;
    const serverKey = keys.server.publicKey;
    const id = { role: 'worker', index, generation } as const;
    const running = spawnLocal({ ...id, command, fds: [], address, serverKey, token }, (status) => {
      const next = this.ranks.get(index)?.next ?? null;
      this.ranks.delete(index);
      this.rankExited(index, generation, status);
      if (next && this.isJoined) this.startRank(next);
      if (this.ranks.size === 0) this.noRankIsLeft?.();
    });
    this.ranks.set(index, { generation, running, next: null });
  }

  private rankExited(index: number, generation: number, status: ExitStatus): void {
    const { code: exitCode, signal, reason } = status;
    if (reason !== undefined) this.options.log.error(`worker ${index}: ${reason}`);
    const hostMemory = this.options.hostMemory();
    this.tell({ kind: 'rankExited', index, generation, exitCode, signal, hostMemory });
  }

  private killRank({ index, generation }: KillRank): void {
    const rank = this.ranks.get(index);
    if (rank?.next?.generation === generation) {
      rank.next = null;
      this.rankExited(index, generation, { code: null, signal: 'SIGKILL' });
    }
    if (rank?.generation === generation) rank.running.kill();
  }

  private async killAll(): Promise<void> {
    for (const rank of this.ranks.values()) {
      rank.next = null;
      rank.running.kill();
    }
    if (this.ranks.size === 0) return;
    const gone = new Promise<void>((resolve) => (this.noRankIsLeft = resolve));
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, killGraceMs)));
    await Promise.race([gone, over]);
    clearTimeout(timer);
  }

  // ------------------------------------------------------------------ the head

  private headLost(): void {
    if (this.state === 'ending') return;
    const { log, address } = this.options;
    if (this.isJoined)
      log.error(`the head at ${address} is lost: its connection has ended or is silent`);
    this.state = 'waiting';
    void this.killAll();
    this.wait();
  }

  private turnedAway(): void {
    if (++this.numTurnedAway < maxTurnedAway || this.state === 'ending') return;
    const { address } = this.options;
    const { noPermission } = exitCodes;
    void this.end(
      noPermission,
      `${address} turns this node away: its key (VLLM_TS_NODE_KEY, --node-key-file) is another, or no head of vllm-ts listens there`,
    );
  }

  private wait(): void {
    const { address, log, timeoutMs } = this.options;
    const say = () => log.info(`waiting for the head at ${address}`);
    const overdue = () =>
      void this.end(1, `no head was there at ${address} within ${timeoutMs / 1000} s`);
    this.waiting.begin(say, timeoutMs, overdue);
  }

  /** A method, so that the compiler expects it to change across an await. */
  private isEnding(): boolean {
    return this.state === 'ending';
  }
}
