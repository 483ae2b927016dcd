// The processes of a server: who lives under which role and index, and how to speak to them. When
// one is started, replaced or ended is decided elsewhere.
import type { SupervisorToProcess } from '../../common/wire/messages.ts';
import type { PeerId, RouterLink } from '../../common/wire/transport.ts';
import { Child, type ChildId, type ChildRole, type ExitStatus } from './child.ts';
import type { Generations, Plan } from './plan.ts';

export class Children implements Generations {
  /** Every child that has not yet ended, also those that are being replaced. */
  readonly alive = new Set<Child>();
  private readonly current = new Map<string, Child>();
  private readonly plan: Plan;
  private readonly link: RouterLink;

  constructor(plan: Plan, link: RouterLink) {
    this.plan = plan;
    this.link = link;
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

  byPeer(peer: PeerId): Child | undefined {
    return [...this.alive].find((child) => child.peer === peer);
  }

  byPid(pid: unknown): Child | undefined {
    return [...this.alive].find((child) => child.pid === pid);
  }

  of(role: ChildRole, index: number): number {
    return this.current.get(keyOf(role, index))?.generation ?? 0;
  }

  spawn(id: ChildId, exited: (child: Child, status: ExitStatus) => void): void {
    const { token, controlAddress: address } = this.plan;
    const command = this.plan.command(id.role);
    const fds = this.plan.fds(id.role);
    const child = new Child({ ...id, command, fds, address, token }, (gone, status) => {
      this.alive.delete(gone);
      exited(gone, status);
    });
    this.current.set(keyOf(id.role, id.index), child);
    this.alive.add(child);
  }

  tell(child: Child, message: SupervisorToProcess): void {
    if (child.peer !== null) this.link.send(child.peer, message);
  }

  tellOthers(than: Child, message: SupervisorToProcess): void {
    for (const child of this.alive) if (child !== than) this.tell(child, message);
  }
}

const keyOf = (role: ChildRole, index: number) => `${role} ${index}`;
