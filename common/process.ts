// The one way in which a process starts, speaks to the supervisor and stops. The supervisor spawns
// it with an environment that says where it is; the process says hello, receives its slice of the
// configuration, starts, says ready, and then obeys: drain, stop, peerLost, peerReady.
import { createLogger, type Logger } from './log.ts';
import type { ProcessSlice } from './config.ts';
import { exitCodes, StartError } from './errors.ts';
import { dieWithParent, requestSlice } from './os/index.ts';
import { aliveIntervalMs } from './own-pauses.ts';
import { makeHello } from './wire/handshake.ts';
import type {
  PeerLost,
  PeerReady,
  ProcessToSupervisor,
  Role,
  SupervisorToProcess,
} from './wire/messages.ts';
import { receive } from './wire/receive.ts';
import { clientCurve, DealerLink } from './wire/transport.ts';

/** Names of the environment variables that the supervisor sets for a child. */
export const processEnv = {
  address: 'VLLM_TS_SUPERVISOR',
  /** Its public CURVE key, where the address is tcp. */
  serverKey: 'VLLM_TS_SUPERVISOR_KEY',
  token: 'VLLM_TS_TOKEN',
  index: 'VLLM_TS_INDEX',
  generation: 'VLLM_TS_GENERATION',
  /** Process id of the supervisor, for the parent-death watch. */
  parent: 'VLLM_TS_PARENT',
} as const;

/**
 * A turn of the event loop and of all threads made after it: the sockets', a backend's and a text
 * pool's too, but not V8's. The shortest that Linux gives.
 */
const sliceNs = 100_000;

/** A pipe that every child inherits; its end tells that the supervisor is gone. */
export const parentPipeFd = 3;
/** The first of the descriptors that a role inherits besides (a frontend's listening socket). */
export const firstInheritedFd = 4;

export interface ProcessContext<Slice extends ProcessSlice> {
  readonly slice: Slice;
  readonly role: Role;
  readonly index: number;
  readonly generation: number;
  /** The per-boot token, for hellos to peers and for checking theirs. */
  readonly token: string;
  readonly log: Logger;
  tell(message: ProcessToSupervisor): void;
  /** Says why and ends the process; the supervisor latches the first cause. */
  fatal(error: unknown, exitCode?: number): void;
}

export interface RunningProcess {
  /** Goes into `ready`. */
  readonly info: Readonly<Record<string, unknown>>;
  /** Takes no new work; resolves when none is left or the time is over. */
  drain?(timeoutMs: number): Promise<void>;
  peerLost?(message: PeerLost): void;
  peerReady?(message: PeerReady): void;
  /** Closes in reverse order of opening. */
  stop(): Promise<void>;
}

export function processTitle(role: Role, index: number): string {
  const single = role === 'engine' || role === 'detokenizer' || role === 'supervisor';
  return `vllm-ts: ${role}${single ? '' : ` ${index}`}`;
}

/** Runs this process as `role`; never returns to its caller's caller, the process ends itself. */
export function runProcess<Slice extends ProcessSlice>(
  role: Role,
  start: (context: ProcessContext<Slice>) => Promise<RunningProcess>,
): void {
  const index = Number(process.env[processEnv.index] ?? 0);
  const generation = Number(process.env[processEnv.generation] ?? 0);
  const token = process.env[processEnv.token] ?? '';
  const address = process.env[processEnv.address];
  process.title = processTitle(role, index);
  requestSlice(sliceNs);
  const name = processTitle(role, index).replace('vllm-ts: ', '');
  let log = createLogger({ process: name, level: 'info', format: 'text' });
  if (address === undefined) {
    log.error('this process is started by the supervisor (vllm-ts serve)');
    process.exit(1);
  }
  // Only the supervisor acts on signals.
  process.on('SIGINT', () => undefined);
  process.on('SIGTERM', () => undefined);
  const parent = process.env[processEnv.parent];
  if (parent !== undefined) dieWithParent(Number(parent), parentPipeFd);

  let running: RunningProcess | null = null;
  /** News of peers that came while this process was still starting. */
  let earlyNews: (PeerLost | PeerReady)[] = [];
  let ending = false;
  const link = new DealerLink(
    address,
    makeHello(role, index, generation, token),
    {
      message: (message) => {
        obey(receive('supervisorToProcess', message)).catch((error: unknown) => fatal(error));
      },
      rejected: (error) => fatal(error),
    },
    clientCurve(process.env[processEnv.serverKey] ?? null),
  );
  const tell = (message: ProcessToSupervisor) => link.send(message);
  setInterval(() => tell({ kind: 'alive' }), aliveIntervalMs).unref();

  function fatal(error: unknown, exitCode?: number): void {
    if (ending) return;
    ending = true;
    const code = exitCode ?? (error instanceof StartError ? error.exitCode : 1);
    const message = error instanceof Error ? error.message : String(error);
    const isForeseen = !(error instanceof Error) || error instanceof StartError;
    log.error(isForeseen ? {} : { err: error.stack }, message);
    tell({ kind: 'fatal', exitCode: code, message });
    // The message needs a moment to leave; the process ends even if it cannot.
    setTimeout(() => process.exit(code), 50);
  }

  process.on('uncaughtException', (error) => fatal(error));
  process.on('unhandledRejection', (error) => fatal(error));

  async function obey(message: SupervisorToProcess): Promise<void> {
    switch (message.kind) {
      case 'config': {
        const slice = message.config as unknown as Slice;
        log = createLogger({ process: name, level: slice.logLevel, format: slice.logFormat });
        running = await start({ slice, role, index, generation, token, log, tell, fatal });
        for (const news of earlyNews) hear(running, news);
        earlyNews = [];
        tell({ kind: 'ready', role, index, generation, info: running.info });
        return;
      }
      case 'refused':
        fatal(new StartError(exitCodes.versionMismatch, `supervisor: ${message.message}`));
        return;
      case 'drain':
        await running?.drain?.(message.timeoutMs);
        tell({ kind: 'drained' });
        return;
      case 'stop':
        ending = true;
        await running?.stop();
        link.close();
        return process.exit(0);
      case 'peerLost':
      case 'peerReady':
        if (running) hear(running, message);
        else earlyNews.push(message);
        return;
    }
  }
}

function hear(running: RunningProcess, news: PeerLost | PeerReady): void {
  if (news.kind === 'peerLost') running.peerLost?.(news);
  else running.peerReady?.(news);
}
