// Programs that start a server for themselves and may be gone before it: then it ends too.
import { Socket } from 'node:net';
import { parentPipeFd, processEnv } from '../../common/process.ts';
import type { StopSignal } from '../supervisor/signals.ts';

const pollMs = 1_000;

export function watchStarter(gone: (signal: StopSignal) => void): void {
  const { env } = process;
  if (env[processEnv.parent] !== undefined) watchPipe(gone);
  else if (env['npm_command'] === 'exec' && /^'?vllm-ts'?$/.test(env['npm_lifecycle_script'] ?? ''))
    watchShell(gone);
}

/** LLM.create sets VLLM_TS_PARENT and hands down a pipe, whose end closes with the program. */
function watchPipe(gone: (signal: StopSignal) => void): void {
  const pipe = new Socket({ fd: parentPipeFd, readable: true, writable: false });
  pipe
    .on('error', () => undefined)
    .on('close', () => {
      gone('SIGINT');
    });
  pipe.resume().unref();
}

/** npx starts us through a shell and passes SIGTERM on to that alone, which dies of it. */
function watchShell(gone: (signal: StopSignal) => void): void {
  const shell = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === shell) return;
    clearInterval(timer);
    gone('SIGTERM');
  }, pollMs);
  timer.unref();
}
