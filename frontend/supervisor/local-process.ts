// A process of this host that the supervisor runs. It dies with the supervisor (see
// common/process.ts); its stdout goes to stderr, because stdout belongs to the ready line.
import { spawn, type ChildProcess } from 'node:child_process';
import { parentPipeFd, processEnv } from '../../common/process.ts';
import type { ChildId, ExitStatus, Running } from './child.ts';

/** Variables that hold keys which children do not need. */
const secrets: readonly string[] = ['VLLM_API_KEY', 'VLLM_TS_NODE_KEY'];

export interface Spawn extends ChildId {
  /** Arguments of node: the entry point. */
  readonly command: readonly string[];
  /** Descriptors that the child inherits, as 4, 5, ... */
  readonly fds: readonly number[];
  /** Where the supervisor's control link binds, and its public key where that is tcp. */
  readonly address: string;
  readonly serverKey: string | null;
  readonly token: string;
}

export function spawnLocal(spawned: Spawn, exited: (status: ExitStatus) => void): Running {
  const { index, generation, command, fds, address, serverKey, token } = spawned;
  const env = Object.entries(process.env).filter(([name]) => !secrets.includes(name));
  let child: ChildProcess;
  try {
    child = spawn(process.execPath, command, {
      stdio: ['ignore', 2, 2, 'pipe', ...fds],
      env: {
        ...Object.fromEntries(env),
        [processEnv.address]: address,
        ...(serverKey !== null && { [processEnv.serverKey]: serverKey }),
        [processEnv.token]: token,
        [processEnv.index]: String(index),
        [processEnv.generation]: String(generation),
        [processEnv.parent]: String(process.pid),
      },
    });
  } catch (error) {
    setImmediate(exited, notStarted(error as Error));
    return { pid: -1, kill: () => undefined };
  }
  // Nothing is ever written to the pipe: only its end matters.
  const stdio = child.stdio as ChildProcess['stdio'] | undefined; // none without free descriptors
  stdio?.[parentPipeFd]?.on('error', () => undefined);
  let isOver = false;
  const over = (status: ExitStatus) => {
    if (isOver) return;
    isOver = true;
    exited(status);
  };
  child.on('exit', (code, signal) => over({ code, signal }));
  child.on('error', (error) => {
    if (child.pid === undefined) over(notStarted(error));
  });
  // Node signals process 0, which is the whole group of this one, where nothing was started.
  const kill = () => {
    if (child.pid !== undefined) child.kill('SIGKILL');
  };
  return { pid: child.pid ?? -1, kill };
}

/** There is no memory, process or file left for it. */
const notStarted = ({ message }: Error): ExitStatus => ({
  code: 1,
  signal: null,
  reason: `it cannot be started: ${message}`,
});
