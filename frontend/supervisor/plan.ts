// What the supervisor is told and what it tells: a plan of processes, and how the server ended.
import type { Ready } from '../../common/wire/messages.ts';
import type { ChildId, ChildRole } from './child.ts';
import type { Nodes } from './nodes.ts';

/** What is run, and with what. */
export interface Plan {
  readonly token: string;
  readonly controlAddress: string;
  readonly processes: readonly { readonly role: ChildRole; readonly index: number }[];
  /** The other hosts that run workers; null where all run here. */
  readonly nodes: Nodes | null;
  readonly shutdownTimeoutMs: number;
  /** Silence after which a process stands still; 0 = never. */
  readonly livenessTimeoutMs: number;
  /** Arguments of node that start the role. */
  command(role: ChildRole): readonly string[];
  /** Descriptors that the role inherits, as 4, 5, ... */
  fds(role: ChildRole): readonly number[];
  /** Its slice; `generations` says which generation of every other process is alive. */
  slice(id: ChildId, generations: Generations): Readonly<Record<string, unknown>>;
  /** Where the role binds in this generation, for peerReady. */
  addresses(id: ChildId): Readonly<Record<string, string>>;
}

export interface Generations {
  of(role: ChildRole, index: number): number;
}

export interface SupervisorEvents {
  /** Every process is ready for the first time; what each reported, by name. */
  ready(info: ReadonlyMap<string, Ready['info']>): void;
  /** A process was replaced and is ready. */
  replaced(id: ChildId): void;
}

/** How the server ended. */
export interface Outcome {
  readonly exitCode: number;
  /** The first cause of an end that nobody asked for. */
  readonly cause: { readonly process: string; readonly message: string } | null;
}
