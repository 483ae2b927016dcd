// One child process: how it is spawned, and what the supervisor knows of it. A child dies with the
// supervisor (see common/process.ts); its stdout goes to stderr, because stdout belongs to the
// ready line.
import { spawn, type ChildProcess } from 'node:child_process';
import { parentPipeFd, processEnv, processTitle } from '../../common/process.ts';
import type { Fatal, Role } from '../../common/wire/messages.ts';
import type { PeerId } from '../../common/wire/transport.ts';

export type ChildRole = Exclude<Role, 'supervisor'>;

export interface ChildId {
  readonly role: ChildRole;
  readonly index: number;
  readonly generation: number;
}

export interface Spawn extends ChildId {
  /** Arguments of node: the entry point. */
  readonly command: readonly string[];
  /** Descriptors that the child inherits, as 4, 5, ... */
  readonly fds: readonly number[];
  readonly address: string;
  readonly token: string;
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class Child implements ChildId {
  readonly role: ChildRole;
  readonly index: number;
  readonly generation: number;
  /** "engine", "worker 0", ... */
  readonly name: string;
  state: 'starting' | 'ready' | 'gone' = 'starting';
  /** Its connection to the control link; null before it has said hello. */
  peer: PeerId | null = null;
  isConfigured = false;
  isDrained = false;
  /** Generation that takes its place, once it is killed because another of its group died. */
  successor: number | null = null;
  /** Why it says it ends. */
  fatal: Fatal | null = null;
  /** What it reported with ready. */
  info: Readonly<Record<string, unknown>> = {};
  private readonly process: ChildProcess;

  constructor(spawned: Spawn, exited: (child: Child, status: ExitStatus) => void) {
    const { role, index, generation, command, fds, address, token } = spawned;
    this.role = role;
    this.index = index;
    this.generation = generation;
    this.name = processTitle(role, index).replace('vllm-ts: ', '');
    const env = { ...process.env };
    delete env['VLLM_API_KEY'];
    this.process = spawn(process.execPath, command, {
      stdio: ['ignore', 2, 2, 'pipe', ...fds],
      env: {
        ...env,
        [processEnv.address]: address,
        [processEnv.token]: token,
        [processEnv.index]: String(index),
        [processEnv.generation]: String(generation),
        [processEnv.parent]: String(process.pid),
      },
    });
    // Nothing is ever written to the pipe: only its end matters.
    this.process.stdio[parentPipeFd]?.on('error', () => undefined);
    let isOver = false;
    const over = (status: ExitStatus) => {
      if (isOver) return;
      isOver = true;
      this.state = 'gone';
      exited(this, status);
    };
    this.process.on('exit', (code, signal) => over({ code, signal }));
    this.process.on('error', () => {
      if (this.process.pid === undefined) over({ code: 1, signal: null });
    });
  }

  get pid(): number {
    return this.process.pid ?? -1;
  }

  kill(): void {
    this.process.kill('SIGKILL');
  }
}

export function describeExit({ code, signal }: ExitStatus): string {
  return signal === null ? `exit code ${code}` : `killed by ${signal}`;
}
