// The supervisor: starts every process at once, hands each its slice, says when all are ready,
// replaces those that die, and ends them all. It knows processes, generations and signals; what a
// process does, and what its slice means, is told to it by a Plan.
import { performance } from 'node:perf_hooks';
import type { Logger } from '../../common/log.ts';
import type { PeerLost, ReplacePeer } from '../../common/wire/messages.ts';
import {
  describeExit,
  type Child,
  type ChildId,
  type ChildRole,
  type ExitStatus,
} from './child.ts';
import { Children } from './children.ts';
import { ControlLink } from './control-link.ts';
import { DeathCount, deathLimit } from './death-count.ts';
import { Ending } from './ending.ts';
import { Liveness } from './liveness.ts';
import type { Outcome, Plan, SupervisorEvents } from './plan.ts';
import { isGroup, isReplaceable, needs } from './roles.ts';
import { actionWords, SignalPolicy, signalExitCodes, type StopSignal } from './signals.ts';
import { Waiter } from './waiter.ts';

/** What nodes may take to hear that the server has ended. */
const nodeGraceMs = 2000;
/** A signal sent to all processes at once may reach a starting child before it reaches us. */
const sharedSignalMs = 250;
const watchMs = 1000;

export class Supervisor {
  private readonly plan: Plan;
  private readonly events: SupervisorEvents;
  private readonly log: Logger;
  private readonly children: Children;
  private readonly link: ControlLink;
  private readonly ending: Ending;
  private readonly deaths = new DeathCount();
  private readonly liveness: Liveness<Child>;
  private watching: NodeJS.Timeout | undefined;
  private readonly signals = new SignalPolicy();
  private readonly waiter = new Waiter();
  private state: 'starting' | 'serving' | 'draining' | 'ending' = 'starting';
  private cause: Outcome['cause'] = null;
  /** Exit code of a second signal; it wins over the end that was under way. */
  private killedWith: number | null = null;
  private finish!: (outcome: Outcome) => void;
  /** Resolves when every process has ended. */
  readonly outcome: Promise<Outcome>;

  private constructor(plan: Plan, events: SupervisorEvents, log: Logger) {
    this.plan = plan;
    this.events = events;
    this.log = log;
    this.children = new Children(plan);
    this.link = new ControlLink(this.children, plan.token, log);
    this.ending = new Ending(this.children, this.waiter);
    this.liveness = new Liveness(plan.livenessTimeoutMs);
    this.outcome = new Promise((resolve) => (this.finish = resolve));
  }

  /** Binds the control link and spawns all processes. */
  static async start(plan: Plan, events: SupervisorEvents, log: Logger): Promise<Supervisor> {
    const supervisor = new Supervisor(plan, events, log);
    await supervisor.openLinks();
    for (const { role, index } of plan.processes) supervisor.spawn({ role, index, generation: 0 });
    log.debug({ atMs: Math.round(performance.now()) }, 'every process is spawned');
    return supervisor;
  }

  private async openLinks(): Promise<void> {
    await this.link.open(this.plan.controlAddress, {
      connected: (child) => this.configure(child),
      heard: (child) => this.liveness.heard(child, performance.now()),
      ready: (child) => this.becameReady(child),
      replacePeer: (message) => this.replace(message),
      changed: () => this.waiter.wake(),
    });
    this.watching = setInterval(() => this.watch(), watchMs);
    await this.plan.nodes?.open({
      message: (link, peer, message) => this.link.receive({ link, peer }, message),
      complete: () => this.configureAll(),
      overdue: (process, reason) => this.fail(process, reason, 1),
      changed: () => this.waiter.wake(),
    });
  }

  signal(signal: StopSignal): void {
    const action = this.signals.next(signal, performance.now());
    if (action === 'ignore') return;
    this.log.info(`${signal}: ${actionWords[action]}`);
    if (action === 'kill') void this.killAll(signalExitCodes[signal]);
    else if (action === 'interrupt') void this.end(signalExitCodes[signal]);
    else void this.drain();
  }

  // ------------------------------------------------------------------ slices

  /** Sends the slice once the processes that it names are there. At the first start none waits. */
  private configure(child: Child): void {
    if (child.connection === null || child.isConfigured) return;
    // A rank is told where all others are.
    if (child.role === 'worker' && this.plan.nodes?.areAllHere === false) return;
    const isMissing = (role: ChildRole) =>
      this.children.ofRole(role).some(({ state }) => state !== 'ready');
    if (this.state !== 'starting' && needs[child.role].some(isMissing)) return;
    child.isConfigured = true;
    const config = this.plan.slice(child, this.children);
    this.children.tell(child, { kind: 'config', config });
  }

  private becameReady(child: Child): void {
    if (this.state === 'starting') {
      const children = this.children.all;
      if (children.some(({ state }) => state !== 'ready')) return;
      this.state = 'serving';
      this.events.ready(new Map(children.map(({ name, info }) => [name, info])));
      return;
    }
    if (child.generation === 0) return;
    const { role, index, generation } = child;
    this.log.info(`${child.name} is ready again (generation ${generation})`);
    this.events.replaced(child);
    const addresses = this.plan.addresses(child);
    this.children.tellOthers(child, { kind: 'peerReady', role, index, generation, addresses });
    this.configureAll();
  }

  private configureAll(): void {
    for (const waiting of this.children.all) this.configure(waiting);
  }

  // ------------------------------------------------------------------ life and death

  private spawn(id: ChildId): void {
    const child = this.children.spawn(id, (gone, status) => this.exited(gone, status));
    // One on another node may wait for its node, which has limits of its own.
    if (child.pid !== null) this.liveness.heard(child, performance.now());
  }

  /** A process has found that another does nothing any more: it is killed, and judged by that. */
  private replace({ role, index, generation, reason }: ReplacePeer): void {
    const lost = this.children.find({ role: role as ChildRole, index, generation });
    if (lost !== undefined && lost.state !== 'gone') this.giveUp(lost, reason);
  }

  /** The same where nobody waits for the other, who could find it. */
  private watch(): void {
    for (const { process, silentMs } of this.liveness.tick(performance.now()))
      this.giveUp(process, `no sign of life for ${Math.round(silentMs)} ms`);
  }

  private giveUp(child: Child, reason: string): void {
    this.log.error(`${child.name} is given up: ${reason}`);
    child.fatal ??= { kind: 'fatal', exitCode: 1, message: reason };
    child.kill();
  }

  private exited(child: Child, status: ExitStatus): void {
    this.liveness.forget(child);
    this.waiter.wake();
    if (this.state === 'ending') return;
    if (child.successor !== null) {
      this.succeed(child, child.successor);
      return;
    }
    if (status.signal === 'SIGTERM' || status.signal === 'SIGINT')
      setTimeout(() => this.judge(child, status), sharedSignalMs);
    else this.judge(child, status);
  }

  private judge(child: Child, status: ExitStatus): void {
    if (this.state === 'ending') return;
    const reason = child.fatal?.message ?? describeExit(status);
    const exitCode = child.fatal?.exitCode ?? 1;
    const { role, index, generation } = child;
    const lost: PeerLost = { kind: 'peerLost', role, index, generation };
    this.children.tellOthers(child, lost);
    if (this.state === 'starting' || !isReplaceable(role)) {
      this.fail(child.name, reason, exitCode);
      return;
    }
    this.log.error(`${child.name} died: ${reason}`);
    // One that is starting with the dead one's address would wait for it for ever.
    for (const other of this.children.alive)
      if (other.state === 'starting' && other.isConfigured && needs[other.role].includes(role))
        other.kill();
    if (this.deaths.add(performance.now())) {
      this.fail(child.name, `${reason}; ${deathLimit} deaths in ten minutes`, exitCode);
      return;
    }
    this.succeed(child, generation + 1);
    if (isGroup(role) && this.state === 'serving') this.replaceGroup(child, generation + 1);
  }

  private succeed({ role, index }: Child, generation: number): void {
    if (this.state === 'serving') this.spawn({ role, index, generation });
  }

  /** The others of the group are killed; each is followed by one of the new generation. */
  private replaceGroup(dead: Child, generation: number): void {
    for (const other of this.children.ofRole(dead.role)) {
      if (other === dead || other.generation >= generation) continue;
      this.log.info(`${other.name} is replaced with ${dead.name}`);
      other.successor = generation;
      other.kill();
    }
  }

  /** Latches the first cause and ends the server. */
  fail(process: string, message: string, exitCode: number): void {
    this.cause ??= { process, message };
    void this.end(exitCode === 0 ? 1 : exitCode, true);
  }

  // ------------------------------------------------------------------ ends

  private async drain(): Promise<void> {
    if (this.state === 'ending' || this.state === 'draining') return;
    if (this.state === 'serving') {
      this.state = 'draining';
      await this.ending.drain(this.plan.shutdownTimeoutMs);
    }
    if (!this.isEnding()) await this.end(0);
  }

  private async end(exitCode: number, tellStreams = false): Promise<void> {
    if (this.state === 'ending') return;
    this.beginToEnd();
    await this.ending.stopAll(tellStreams);
    await this.finished(exitCode);
  }

  private async killAll(exitCode: number): Promise<void> {
    this.beginToEnd();
    this.killedWith ??= exitCode;
    await this.ending.killAll();
    await this.finished(exitCode);
  }

  /** From here on patience has other limits. */
  private beginToEnd(): void {
    this.state = 'ending';
    clearInterval(this.watching);
  }

  private async finished(firstCode: number): Promise<void> {
    const { nodes } = this.plan;
    const exitCode = this.killedWith ?? firstCode;
    nodes?.end(
      exitCode,
      this.cause ? `${this.cause.process}: ${this.cause.message}` : 'it was stopped',
    );
    await this.waiter.until(() => nodes?.areAllGone ?? true, nodeGraceMs);
    nodes?.close();
    this.link.close();
    this.finish({ exitCode, cause: this.cause });
  }

  /** A method, so that the compiler expects it to change across an await. */
  private isEnding(): boolean {
    return this.state === 'ending';
  }
}
