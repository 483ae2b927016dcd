// The other nodes of a server that runs on several hosts, as its head sees them. Each is a peer of
// one TCP link, with CURVE keys made of the nodes' common secret; at this supervisor's word it
// starts and kills ranks, and says when one has ended. The ranks speak for themselves, on the same
// link. A node that is silent or goes takes its ranks along; they are started again when it is back.
import type { Memory } from '../../common/host-memory.ts';
import type { Logger } from '../../common/log.ts';
import { exitCodes, StartError } from '../../common/errors.ts';
import { checkHello } from '../../common/wire/handshake.ts';
import type { EndNode, HeadToNode, NodeJoin, RankExited } from '../../common/wire/messages.ts';
import { receive } from '../../common/wire/receive.ts';
import { RouterLink, type AnyMessage, type PeerId } from '../../common/wire/transport.ts';
import type { ChildId, ExitStatus, Running } from './child.ts';
import { LongWait } from './long-wait.ts';
import { nodeSilenceMs, type NodeKeys } from './node-keys.ts';

export interface NodesOptions {
  /** tcp://HOST:PORT */
  readonly address: string;
  readonly keys: NodeKeys;
  readonly numNodes: number;
  readonly numRanks: number;
  /** The per-boot token, for ranks. */
  readonly token: string;
  /** A node that is waited for so long ends the server. */
  readonly timeoutMs: number;
  readonly log: Logger;
  /** Why the node does not fit; null if it does. */
  refusal(join: NodeJoin): Pick<EndNode, 'exitCode' | 'message'> | null;
}

export interface NodesEvents {
  /** From a peer that is no node: a rank. */
  message(link: RouterLink, peer: PeerId, message: AnyMessage): void;
  /** The last node that was missing is here. */
  complete(): void;
  /** A node did not come in time. */
  overdue(process: string, reason: string): void;
  changed(): void;
}

interface Node {
  readonly peer: PeerId;
  readonly join: NodeJoin;
  /** As it told last. */
  hostMemory: Memory;
}

interface Rank {
  readonly generation: number;
  isStarted: boolean;
  readonly exited: (status: ExitStatus) => void;
}

export class Nodes {
  private readonly options: NodesOptions;
  private events!: NodesEvents;
  private link!: RouterLink;
  /** By node rank; the head's own is not among them. */
  private readonly here = new Map<number, Node>();
  /** Peers that have said a node's hello. */
  private readonly welcomed = new Set<PeerId>();
  /** Ranks that are wanted, by index. */
  private readonly ranks = new Map<number, Rank>();
  private readonly waiting = new LongWait();
  private numTurnedAway = 0;
  private isEnding = false;

  constructor(options: NodesOptions) {
    this.options = options;
  }

  /** Throws StartError for an address that cannot be bound. */
  async open(events: NodesEvents): Promise<void> {
    this.events = events;
    const { address, keys, log } = this.options;
    this.link = await RouterLink.bind(
      address,
      {
        message: (peer, message) => this.receive(peer, message),
        disconnected: (peer) => this.disconnected(peer),
        rejected: (peer, error) => {
          log.warn(`link of nodes: ${error.message}`);
          this.disconnected(peer);
        },
        turnedAway: () => {
          if (this.numTurnedAway++ === 0)
            log.warn(`${address}: a peer with another key, or none, was turned away`);
        },
      },
      { curve: keys.server, silenceMs: nodeSilenceMs },
    ).catch((error: unknown) => {
      const why = error instanceof Error ? error.message : String(error);
      throw new StartError(1, `cannot wait for nodes at ${address}: ${why}`);
    });
    this.wait();
  }

  get areAllHere(): boolean {
    return this.here.size === this.options.numNodes - 1;
  }

  /** No node is connected any more. */
  get areAllGone(): boolean {
    return this.here.size === 0;
  }

  /** Of an index of a worker; 0 is the head's. */
  nodeOf(rank: number): number {
    return Math.floor(rank / (this.options.numRanks / this.options.numNodes));
  }

  /** What the rank's node said of itself; null for the head's own and while it is missing. */
  joinOf(rank: number): NodeJoin | null {
    return this.here.get(this.nodeOf(rank))?.join ?? null;
  }

  /** Of a node that is here, as it was when it joined or a rank of its ended last. */
  hostMemory(nodeRank: number): Memory {
    return this.here.get(nodeRank)!.hostMemory;
  }

  /** Runs a rank on its node, as soon as that is here. */
  launch(id: ChildId, exited: (status: ExitStatus) => void): Running {
    const { index, generation } = id;
    const rank: Rank = { generation, isStarted: false, exited };
    this.ranks.set(index, rank);
    const node = this.here.get(this.nodeOf(index));
    if (node) this.start(node, index, rank);
    const kill = () => {
      if (this.ranks.get(index) !== rank) return;
      const runsOn = this.here.get(this.nodeOf(index));
      if (rank.isStarted && runsOn) this.tell(runsOn.peer, { kind: 'killRank', index, generation });
      else setImmediate(() => this.over(index, rank, { code: null, signal: 'SIGKILL' }));
    };
    return { pid: null, kill };
  }

  /** Tells every node that the server has ended. */
  end(exitCode: number, message: string): void {
    this.isEnding = true;
    this.waiting.end();
    for (const { peer } of this.here.values())
      this.tell(peer, { kind: 'endNode', exitCode, message });
  }

  close(): void {
    this.waiting.end();
    this.link.close();
  }

  private tell(peer: PeerId, message: HeadToNode): void {
    this.link.send(peer, message);
  }

  private receive(peer: PeerId, raw: AnyMessage): void {
    if (raw.kind === 'hello' && raw['role'] === 'node') this.hello(peer, raw);
    else if (!this.welcomed.has(peer)) this.events.message(this.link, peer, raw);
    else {
      const message = receive('nodeToHead', raw);
      if (message.kind === 'nodeJoin') this.join(peer, message);
      else if (message.kind === 'rankExited') this.rankExited(peer, message);
    }
  }

  private hello(peer: PeerId, raw: AnyMessage): void {
    const { keys, log } = this.options;
    const hello = checkHello(raw, { token: keys.token, roles: ['node'] });
    if (hello.kind === 'refused') {
      log.error(`a node was refused: ${hello.message}`);
      this.link.refuse(peer, hello);
      return;
    }
    this.welcomed.add(peer);
    this.tell(peer, { kind: 'nodeWelcome' });
  }

  private join(peer: PeerId, join: NodeJoin): void {
    const { log } = this.options;
    const { nodeRank, address } = join;
    const name = `node ${nodeRank} (${address})`;
    const refused = this.options.refusal(join);
    if (refused) {
      log.error(`${name} was refused: ${refused.message}`);
      this.tell(peer, { kind: 'endNode', ...refused });
      this.link.drop(peer);
      return;
    }
    const before = this.here.get(nodeRank);
    if (before) {
      const message = `another has joined as node ${nodeRank}, from ${address}`;
      this.tell(before.peer, { kind: 'endNode', exitCode: exitCodes.badFlag, message });
      this.lose(nodeRank, 'another has taken its place');
    }
    const node = { peer, join, hostMemory: join.hostMemory };
    this.here.set(nodeRank, node);
    log.info(`${name} has joined`);
    for (const [index, rank] of this.ranks)
      if (!rank.isStarted && this.nodeOf(index) === nodeRank) this.start(node, index, rank);
    if (!this.areAllHere) return;
    this.waiting.end();
    this.events.complete();
  }

  private start({ peer }: Node, index: number, rank: Rank): void {
    rank.isStarted = true;
    const { generation } = rank;
    const { token } = this.options;
    this.tell(peer, { kind: 'startRank', index, generation, token });
  }

  private rankExited(peer: PeerId, message: RankExited): void {
    const { index, generation, exitCode: code } = message;
    const rank = this.ranks.get(index);
    const node = this.here.get(this.nodeOf(index));
    if (node?.peer !== peer) return;
    node.hostMemory = message.hostMemory;
    if (rank?.generation !== generation || !rank.isStarted) return;
    this.over(index, rank, { code, signal: message.signal as NodeJS.Signals | null });
  }

  private disconnected(peer: PeerId): void {
    this.welcomed.delete(peer);
    for (const [nodeRank, node] of this.here)
      if (node.peer === peer) this.lose(nodeRank, 'its connection has ended or is silent');
  }

  private lose(nodeRank: number, why: string): void {
    const node = this.here.get(nodeRank)!;
    this.here.delete(nodeRank);
    this.welcomed.delete(node.peer);
    const reason = `node ${nodeRank} (${node.join.address}) is lost: ${why}`;
    if (!this.isEnding) this.options.log.error(reason);
    this.wait();
    for (const [index, rank] of [...this.ranks])
      if (rank.isStarted && this.nodeOf(index) === nodeRank)
        this.over(index, rank, { code: null, signal: null, reason });
    this.events.changed();
  }

  private over(index: number, rank: Rank, status: ExitStatus): void {
    if (this.ranks.get(index) !== rank) return;
    this.ranks.delete(index);
    rank.exited(status);
  }

  // ------------------------------------------------------------------ waiting

  private wait(): void {
    if (this.isEnding || this.areAllHere) return;
    const { timeoutMs, log, address } = this.options;
    const say = () => log.info(`waiting for ${this.missing()} to join at ${address}`);
    this.waiting.begin(say, timeoutMs, () =>
      this.events.overdue(
        this.missing(),
        `did not join at ${address} within ${timeoutMs / 1000} s`,
      ),
    );
  }

  /** "node 1", "nodes 1, 3" */
  private missing(): string {
    const { numNodes } = this.options;
    const all = Array.from({ length: numNodes - 1 }, (_, i) => i + 1);
    const missing = all.filter((nodeRank) => !this.here.has(nodeRank));
    return `${missing.length === 1 ? 'node' : 'nodes'} ${missing.join(', ')}`;
  }
}
