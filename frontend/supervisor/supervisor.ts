// The supervisor: starts every process at once, hands each its slice, says when all are ready,
// replaces those that die, and ends them all. It knows processes, generations and signals; what a
// process does, and what its slice means, is told to it by a Plan.
import { performance } from 'node:perf_hooks';
import type { Logger } from '../../common/log.ts';
import { checkHello } from '../../common/wire/handshake.ts';
import type { PeerLost, SupervisorToProcess } from '../../common/wire/messages.ts';
import { receive } from '../../common/wire/receive.ts';
import { RouterLink, type AnyMessage, type PeerId } from '../../common/wire/transport.ts';
import { Child, describeExit, type ChildId, type ChildRole, type ExitStatus } from './child.ts';
import { DeathCount, deathLimit } from './death-count.ts';
import type { Outcome, Plan, SupervisorEvents } from './plan.ts';
import { SignalPolicy, signalExitCodes, type StopSignal } from './signals.ts';
import { Waiter } from './waiter.ts';

/** Processes that others can do without while they are replaced. */
const isReplaceable = (role: ChildRole) => role !== 'engine';
/** Links that a starting process needs: it gets its slice when these are ready. */
const needs: Readonly<Record<ChildRole, readonly ChildRole[]>> = {
  engine: ['detokenizer'],
  detokenizer: [],
  worker: ['engine'],
  frontend: ['engine', 'detokenizer'],
};
/** What a process may take to end after `stop`, and streams to be told of a lost engine. */
const stopGraceMs = 2000;
const streamEndGraceMs = 1000;
/** What the answers of the last drained requests may take to leave. */
const drainSlackMs = 2000;
/** A signal sent to all processes at once may reach a starting child before it reaches us. */
const sharedSignalMs = 250;

export class Supervisor {
  private readonly plan: Plan;
  private readonly events: SupervisorEvents;
  private readonly log: Logger;
  private readonly link: RouterLink;
  private readonly children = new Map<string, Child>();
  /** Every child that has not yet ended, also those that are being replaced. */
  private readonly alive = new Set<Child>();
  private readonly deaths = new DeathCount();
  private readonly signals = new SignalPolicy();
  private readonly waiter = new Waiter();
  private state: 'starting' | 'serving' | 'draining' | 'ending' = 'starting';
  private cause: Outcome['cause'] = null;
  /** Exit code of a second signal; it wins over the end that was under way. */
  private killedWith: number | null = null;
  private finish!: (outcome: Outcome) => void;
  /** Resolves when every process has ended. */
  readonly outcome: Promise<Outcome>;

  private constructor(plan: Plan, events: SupervisorEvents, log: Logger, link: RouterLink) {
    this.plan = plan;
    this.events = events;
    this.log = log;
    this.link = link;
    this.outcome = new Promise((resolve) => (this.finish = resolve));
  }

  /** Binds the control link and spawns all processes. */
  static async start(plan: Plan, events: SupervisorEvents, log: Logger): Promise<Supervisor> {
    let supervisor: Supervisor | null = null;
    const link = await RouterLink.bind(plan.controlAddress, {
      message: (peer, message) => supervisor?.receive(peer, message),
      disconnected: () => undefined,
      rejected: (_, error) => log.warn(`control link: ${error.message}`),
    });
    supervisor = new Supervisor(plan, events, log, link);
    for (const { role, index } of plan.processes) supervisor.spawn({ role, index, generation: 0 });
    log.debug({ atMs: Math.round(performance.now()) }, 'every process is spawned');
    return supervisor;
  }

  signal(signal: StopSignal): void {
    const action = this.signals.next(signal, performance.now());
    if (action === 'ignore') return;
    this.log.info(`${signal}: ${actionWords[action]}`);
    if (action === 'kill') void this.killAll(signalExitCodes[signal]);
    else if (action === 'interrupt') void this.end(signalExitCodes[signal]);
    else void this.drain();
  }

  // ------------------------------------------------------------------ messages

  private receive(peer: PeerId, raw: AnyMessage): void {
    if (raw.kind === 'hello') {
      this.welcome(peer, raw);
      return;
    }
    const message = receive('processToSupervisor', raw);
    const child = [...this.alive].find((child) => child.peer === peer);
    if (!child) return;
    switch (message.kind) {
      case 'hello':
        break;
      case 'ready':
        child.info = message.info;
        child.state = 'ready';
        this.log.debug({ atMs: Math.round(performance.now()) }, `${child.name} is ready`);
        this.becameReady(child);
        break;
      case 'drained':
        child.isDrained = true;
        break;
      case 'fatal':
        child.fatal ??= message;
        break;
      case 'replacePeer': {
        const lost = this.children.get(keyOf(message as ChildId));
        if (lost?.generation !== message.generation) break;
        this.log.error(`${lost.name} is replaced: ${message.reason}`);
        lost.kill();
        break;
      }
    }
    this.waiter.wake();
  }

  private welcome(peer: PeerId, raw: AnyMessage): void {
    const roles = ['engine', 'worker', 'detokenizer', 'frontend'] as const;
    const hello = checkHello(raw, { token: this.plan.token, roles });
    if (hello.kind === 'refused') {
      this.link.send(peer, hello);
      return;
    }
    const child = this.children.get(keyOf(hello as ChildId));
    if (child?.generation !== hello.generation || child.pid !== hello.pid) return;
    child.peer = peer;
    this.log.debug({ atMs: Math.round(performance.now()) }, `${child.name} says hello`);
    this.configure(child);
  }

  /** Sends the slice once the processes that it names are there. At the first start none waits. */
  private configure(child: Child): void {
    if (child.peer === null || child.isConfigured) return;
    const isMissing = (role: ChildRole) => this.ofRole(role).some(({ state }) => state !== 'ready');
    if (this.state !== 'starting' && needs[child.role].some(isMissing)) return;
    child.isConfigured = true;
    const generations = {
      of: (role: ChildRole, index: number) =>
        this.children.get(keyOf({ role, index }))?.generation ?? 0,
    };
    this.tell(child, { kind: 'config', config: this.plan.slice(child, generations) });
  }

  private becameReady(child: Child): void {
    if (this.state === 'starting') {
      const children = [...this.children.values()];
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
    this.tellOthers(child, { kind: 'peerReady', role, index, generation, addresses });
    for (const waiting of this.children.values()) this.configure(waiting);
  }

  // ------------------------------------------------------------------ life and death

  private spawn(id: ChildId): void {
    const { token, controlAddress: address } = this.plan;
    const command = this.plan.command(id.role);
    const fds = this.plan.fds(id.role);
    const child = new Child({ ...id, command, fds, address, token }, (gone, status) => {
      this.exited(gone, status);
    });
    this.children.set(keyOf(id), child);
    this.alive.add(child);
  }

  private exited(child: Child, status: ExitStatus): void {
    this.alive.delete(child);
    this.waiter.wake();
    if (this.state === 'ending') return;
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
    this.tellOthers(child, lost);
    if (this.state === 'starting' || !isReplaceable(role)) {
      this.fail(child.name, reason, exitCode);
      return;
    }
    this.log.error(`${child.name} died: ${reason}`);
    // One that is starting with the dead one's address would wait for it for ever.
    for (const other of this.alive)
      if (other.state === 'starting' && other.isConfigured && needs[other.role].includes(role))
        other.kill();
    if (this.deaths.add(performance.now())) {
      this.fail(child.name, `${reason}; ${deathLimit} deaths in ten minutes`, exitCode);
      return;
    }
    if (this.state === 'serving') this.spawn({ role, index, generation: generation + 1 });
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
      await this.drainServing();
    }
    if (!this.isEnding()) await this.end(0);
  }

  /**
   * Frontends first: what they have taken is served. Then the engine, which ends what is left (also
   * of foreign frontends) when the time is over.
   */
  private async drainServing(): Promise<void> {
    const { shutdownTimeoutMs } = this.plan;
    const deadline = performance.now() + shutdownTimeoutMs;
    const left = () => Math.max(0, Math.round(deadline - performance.now()));
    const frontends = this.ofRole('frontend');
    for (const child of frontends) this.tell(child, { kind: 'drain', timeoutMs: left() });
    await this.waiter.until(() => this.areDrained(frontends), left());
    const engines = this.ofRole('engine');
    for (const child of engines) this.tell(child, { kind: 'drain', timeoutMs: left() });
    const all = [...frontends, ...engines];
    await this.waiter.until(() => this.areDrained(all), left() + drainSlackMs);
  }

  /** Ends every process: frontends first, so that clients are told before their answers stop. */
  private async end(exitCode: number, tellStreams = false): Promise<void> {
    if (this.state === 'ending') return;
    this.state = 'ending';
    const frontends = [...this.alive].filter(({ role }) => role === 'frontend');
    const serving = frontends.filter(({ state }) => state === 'ready');
    if (tellStreams && serving.length > 0) {
      for (const child of serving) this.tell(child, { kind: 'drain', timeoutMs: 0 });
      await this.waiter.until(() => this.areDrained(serving), streamEndGraceMs);
    }
    await this.stop(frontends);
    await this.stop([...this.alive]);
    this.finished(exitCode);
  }

  private async stop(children: readonly Child[]): Promise<void> {
    for (const child of children) {
      // One that is still starting has nothing to close and may be deaf.
      if (child.state === 'ready') this.tell(child, { kind: 'stop' });
      else child.kill();
    }
    await this.waiter.until(() => children.every((child) => !this.alive.has(child)), stopGraceMs);
    for (const child of children) if (this.alive.has(child)) child.kill();
    await this.waiter.until(() => children.every((child) => !this.alive.has(child)), stopGraceMs);
  }

  /** Overtakes an end that is under way. */
  private async killAll(exitCode: number): Promise<void> {
    this.state = 'ending';
    this.killedWith ??= exitCode;
    for (const child of this.alive) child.kill();
    await this.waiter.until(() => this.alive.size === 0, stopGraceMs);
    this.finished(exitCode);
  }

  private finished(exitCode: number): void {
    this.link.close();
    this.finish({ exitCode: this.killedWith ?? exitCode, cause: this.cause });
  }

  // ------------------------------------------------------------------ helpers

  private ofRole(role: ChildRole): Child[] {
    return [...this.children.values()].filter((child) => child.role === role);
  }

  private areDrained(children: readonly Child[]): boolean {
    return children.every((child) => child.isDrained || child.state === 'gone');
  }

  private tell(child: Child, message: SupervisorToProcess): void {
    if (child.peer !== null) this.link.send(child.peer, message);
  }

  private tellOthers(than: Child, message: SupervisorToProcess): void {
    for (const child of this.alive) if (child !== than) this.tell(child, message);
  }

  /** A method, so that the compiler expects it to change across an await. */
  private isEnding(): boolean {
    return this.state === 'ending';
  }
}

const actionWords = {
  drain: 'draining',
  interrupt: 'stopping',
  kill: 'ending at once',
} as const;

const keyOf = ({ role, index }: Pick<ChildId, 'role' | 'index'>) => `${role} ${index}`;
