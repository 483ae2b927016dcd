// Messages between the head of a server that runs on several hosts and the supervisors of the other
// nodes, which start and end ranks at the head's word. Over TCP with CURVE only.
import type { Memory } from '../host-memory.ts';
import type { Hello, Refused } from './messages-common.ts';

// ---------------------------------------------------------------- node -> head

/** After `nodeWelcome`: what this node has; the head refuses what does not fit its own. */
export interface NodeJoin {
  readonly kind: 'nodeJoin';
  readonly nodeRank: number;
  readonly numNodes: number;
  readonly numRanks: number;
  /** Of the processor: x64, arm64. */
  readonly arch: string;
  /** Where its ranks listen for other ranks; numeric. */
  readonly address: string;
  readonly modelPath: string;
  /** Hashes of what config.json says and of the weights' files. */
  readonly configHash: string;
  readonly weightsHash: string;
  /** --threads of this node. */
  readonly numThreads: number;
  /** Before any rank of its packed its weights. */
  readonly hostMemory: Memory;
}

/** A rank that this node ran has ended. */
export interface RankExited {
  readonly kind: 'rankExited';
  readonly index: number;
  readonly generation: number;
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** Without this rank. */
  readonly hostMemory: Memory;
}

export type NodeToHead = Hello | NodeJoin | RankExited;

// ---------------------------------------------------------------- head -> node

export interface NodeWelcome {
  readonly kind: 'nodeWelcome';
}

export interface StartRank {
  readonly kind: 'startRank';
  readonly index: number;
  readonly generation: number;
  /** The per-boot token, with which the rank says hello to supervisor and engine. */
  readonly token: string;
}

export interface KillRank {
  readonly kind: 'killRank';
  readonly index: number;
  readonly generation: number;
}

/** The node is refused, or the server has ended: it ends its ranks, then itself with this code. */
export interface EndNode {
  readonly kind: 'endNode';
  readonly exitCode: number;
  readonly message: string;
}

export type HeadToNode = NodeWelcome | Refused | StartRank | KillRank | EndNode;
