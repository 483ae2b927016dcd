// The processes of a server: who lives under which role and index, and how to speak to them. When
// one is started, replaced or ended is decided elsewhere.
import type { SupervisorToProcess } from '../../common/wire/messages.ts';
import {
  Child,
  type ChildId,
  type ChildRole,
  type Connection,
  type ExitStatus,
  type Running,
} from './child.ts';
import { spawnLocal } from './local-process.ts';
import type { Generations, Plan } from './plan.ts';

export class Children implements Generations {
  /** Every child that has not yet ended, also those that are being replaced. */
  readonly alive = new Set<Child>();
  private readonly current = new Map<string, Child>();
  private readonly plan: Plan;

  constructor(plan: Plan) {
    this.plan = plan;
  }

  /** The newest of each role and index, alive or not. */
  get all(): Child[] {
    return [...this.current.values()];
  }

  ofRole(role: ChildRole): Child[] {
    return this.all.filter((child) => child.role === role);
  }

  /** The newest of this role and index, if it is of this generation. */
  find({ role, index, generation }: ChildId): Child | undefined {
    const child = this.current.get(keyOf(role, index));
    return child?.generation === generation ? child : undefined;
  }

  byConnection({ link, peer }: Connection): Child | undefined {
    return [...this.alive].find(
      ({ connection }) => connection?.link === link && connection.peer === peer,
    );
  }

  byPid(pid: unknown): Child | undefined {
    return [...this.alive].find((child) => child.pid === pid);
  }

  of(role: ChildRole, index: number): number {
    return this.current.get(keyOf(role, index))?.generation ?? 0;
  }

  spawn(id: ChildId, exited: (child: Child, status: ExitStatus) => void): Child {
    const { nodes } = this.plan;
    const isElsewhere = id.role === 'worker' && nodes !== null && nodes.nodeOf(id.index) > 0;
    const launch = isElsewhere ? nodes.launch.bind(nodes) : this.launchHere.bind(this);
    const child = new Child(id, launch, (gone, status) => {
      this.alive.delete(gone);
      exited(gone, status);
    });
    this.current.set(keyOf(id.role, id.index), child);
    this.alive.add(child);
    return child;
  }

  tell({ connection }: Child, message: SupervisorToProcess): void {
    connection?.link.send(connection.peer, message);
  }

  tellOthers(than: Child, message: SupervisorToProcess): void {
    for (const child of this.alive) if (child !== than) this.tell(child, message);
  }

  private launchHere(id: ChildId, exited: (status: ExitStatus) => void): Running {
    const { token, controlAddress: address } = this.plan;
    const command = this.plan.command(id.role);
    const fds = this.plan.fds(id.role);
    return spawnLocal({ ...id, command, fds, address, serverKey: null, token }, exited);
  }
}

const keyOf = (role: ChildRole, index: number) => `${role} ${index}`;
