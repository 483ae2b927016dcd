// One process of the server as the supervisor knows it: who it is, how far it is, how to reach it.
// Whether it runs on this host (local-process.ts) or on another node (nodes.ts) is its launcher's
// business.
import { processTitle } from '../../common/process.ts';
import type { Fatal, Role } from '../../common/wire/messages.ts';
import type { PeerId, RouterLink } from '../../common/wire/transport.ts';

export type ChildRole = Exclude<Role, 'supervisor' | 'node'>;

export interface ChildId {
  readonly role: ChildRole;
  readonly index: number;
  readonly generation: number;
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** In place of both, where nobody could tell them. */
  readonly reason?: string;
}

export interface Running {
  /** null on another node. */
  readonly pid: number | null;
  kill(): void;
}

/** Starts the process; `exited` is called once, never before this returns. */
export type Launch = (id: ChildId, exited: (status: ExitStatus) => void) => Running;

/** A peer of one of the supervisor's links. */
export interface Connection {
  readonly link: RouterLink;
  readonly peer: PeerId;
}

export class Child implements ChildId {
  readonly role: ChildRole;
  readonly index: number;
  readonly generation: number;
  /** "engine", "worker 0", ... */
  readonly name: string;
  state: 'starting' | 'ready' | 'gone' = 'starting';
  /** Null before it has said hello. */
  connection: Connection | null = null;
  isConfigured = false;
  isDrained = false;
  /** Generation that takes its place, once it is killed because another of its group died. */
  successor: number | null = null;
  /** Why it says it ends. */
  fatal: Fatal | null = null;
  /** What it reported with ready. */
  info: Readonly<Record<string, unknown>> = {};
  private readonly running: Running;

  constructor(id: ChildId, launch: Launch, exited: (child: Child, status: ExitStatus) => void) {
    this.role = id.role;
    this.index = id.index;
    this.generation = id.generation;
    this.name = processTitle(id.role, id.index).replace('vllm-ts: ', '');
    this.running = launch(id, (status) => {
      this.state = 'gone';
      exited(this, status);
    });
  }

  get pid(): number | null {
    return this.running.pid;
  }

  kill(): void {
    this.running.kill();
  }
}

export function describeExit({ code, signal, reason }: ExitStatus): string {
  return reason ?? (signal === null ? `exit code ${code}` : `killed by ${signal}`);
}
