// A whole server for a test: the real command in a process of its own, killed at the end of the
// test, when nothing of it may be left.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { descendants, isAlive, titleOf } from '../../scripts/bench/processes.ts';

export { descendants, isAlive, titleOf };

const entry = fileURLToPath(new URL('vllm-ts.js', import.meta.url));

/** Ten times what anything here may take on a busy machine. */
export const limitMs = 180_000;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class Server {
  /** Fields of the ready line. */
  readonly ready: Record<string, string> = {};
  stdout = '';
  stderr = '';
  readonly exited: Promise<Exit>;
  /** The folder in which it makes its run directory. */
  readonly runParent: string;
  private readonly process: ChildProcess;

  constructor([program = '', ...args]: readonly string[]) {
    this.runParent = mkdtempSync(join(tmpdir(), 'vt-e2e-'));
    this.process = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, XDG_RUNTIME_DIR: this.runParent, VLLM_API_KEY: '' },
    });
    this.process.stdout!.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    this.process.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.exited = new Promise((resolve) => {
      this.process.on('close', (code, signal) => resolve({ code, signal }));
    });
  }

  get pid(): number {
    return this.process.pid!;
  }

  get url(): string {
    return this.ready['url']!;
  }

  kill(signal: NodeJS.Signals): void {
    this.process.kill(signal);
  }

  /** Presses keys, where the command is a terminal. */
  type(keys: string): void {
    this.process.stdin!.write(keys);
  }

  /** Goes away, as `| head -1` does. */
  stopReading(): void {
    this.process.stdout!.destroy();
    this.process.stderr!.destroy();
  }

  /** Waits for the ready line. Throws with all that it said if it ends instead. */
  async waitReady(mostMs = limitMs): Promise<void> {
    await this.waitFor(
      () => this.stdout.includes('try: ') || this.stdout.includes('url=none'),
      mostMs,
    );
    const line = this.stdout.split('\n').find((text) => text.startsWith('vllm-ts ready '));
    for (const [, key = '', value = ''] of line!.matchAll(/(\w+)=("[^"]*"|\S+)/g))
      this.ready[key] = value.replaceAll('"', '');
  }

  async waitFor(condition: () => boolean, mostMs = limitMs): Promise<void> {
    const end = Date.now() + mostMs;
    while (!condition()) {
      if (this.process.exitCode !== null || this.process.signalCode !== null)
        throw new Error(`the server has ended: ${this.process.exitCode}\n${this.stderr}`);
      if (Date.now() > end) throw new Error(`waited too long\n${this.stdout}${this.stderr}`);
      await sleep(10);
    }
  }

  /** Process ids by title: "engine", "worker 0", ... Those that have not set theirs are left out. */
  children(): Map<string, number> {
    const found = descendants(this.pid).map((pid) => [titleOf(pid), pid] as const);
    return new Map(
      found
        .filter(([title]) => title.startsWith('vllm-ts: '))
        .map(([title, pid]) => [title.slice('vllm-ts: '.length), pid]),
    );
  }

  /** A child's pid, once it has its title. */
  async child(name: string): Promise<number> {
    await this.waitFor(() => this.children().has(name));
    return this.children().get(name)!;
  }
}

/** Starts a server and waits until it is ready. `--port 0` is added. */
export async function startServer(t: Test, argv: readonly string[] = []): Promise<Server> {
  const server = runServer(t, ['--port', '0', ...argv]);
  await server.waitReady();
  return server;
}

export function runServer(t: Test, argv: readonly string[]): Server {
  return runCommand(t, [...serveCommand, ...argv]);
}

/** Another device than the default one, for trying these tests on it. */
const device = process.env['VLLM_TS_E2E_DEVICE'];
const deviceFlags = device === undefined ? [] : ['--device', device];

export const serveCommand: readonly string[] = [process.execPath, entry, 'serve', ...deviceFlags];

/** Starts a server by any command; when the test ends it is killed, and must leave no process. */
export function runCommand(t: Test, command: readonly string[]): Server {
  const server = new Server(command);
  t.teardown(async () => {
    const pids = [server.pid, ...descendants(server.pid)];
    server.kill('SIGKILL');
    await server.exited;
    const left = await waitGone(pids);
    rmSync(server.runParent, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`orphans: ${left.map(titleOf).join(', ')}`);
  });
  return server;
}

/** Waits until none of the processes is left; returns those that are after the limit. */
export async function waitGone(pids: readonly number[]): Promise<number[]> {
  const end = Date.now() + limitMs;
  let left = pids.filter(isAlive);
  while (left.length > 0 && Date.now() < end) {
    await sleep(10);
    left = left.filter(isAlive);
  }
  return left;
}
