// A server without HTTP as a child of this process: spawned with the flags of `vllm-ts serve`,
// reached through the frontend.json in a folder of its own, gone when this process is.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StartError } from '../common/errors.ts';
import { packageRoot } from '../common/package-root.ts';
import { processEnv } from '../common/process.ts';

export type FlagValue = string | number | boolean | readonly (string | number)[] | object | null;

/** Lines of the server's log that an error message can quote from. */
const maxLogLines = 50;

export class LlmServer {
  /** Holds frontend.json. */
  readonly folder: string;
  private readonly child: ChildProcess;
  private readonly exited: Promise<number>;
  private readonly logLines: string[] = [];
  private partLine = '';

  private constructor(model: string | null, flags: Readonly<Record<string, FlagValue>>) {
    this.folder = mkdtempSync(join(tmpdir(), 'vllm-ts-'));
    this.child = spawn(
      process.execPath,
      [
        join(packageRoot, 'scripts/vllm-ts.mjs'),
        'serve',
        ...(model === null ? [] : [model]),
        '--headless',
        '--frontend-address',
        this.folder,
        ...flagArguments(flags),
      ],
      {
        // Nothing is written to the last pipe: its end tells the server that we are gone.
        stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
        env: { ...process.env, [processEnv.parent]: String(process.pid) },
      },
    );
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => this.addLog(text));
    this.exited = new Promise((resolve) => {
      const over = (code: number | null) => {
        rmSync(this.folder, { recursive: true, force: true });
        resolve(code ?? 1);
      };
      this.child.on('exit', over);
      this.child.on('error', () => over(1));
    });
  }

  /** Resolves when the server is ready; throws StartError with its own words and exit code. */
  static async start(
    model: string | null,
    flags: Readonly<Record<string, FlagValue>>,
  ): Promise<LlmServer> {
    const server = new LlmServer(model, flags);
    const ready = new Promise<null>((resolve) => {
      let out = '';
      server.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
        if (out !== '' && out.includes('\n')) return;
        out += text;
        if (out.includes('\n')) resolve(null);
      });
    });
    const exitCode = await Promise.race([ready, server.exited]);
    if (exitCode !== null) throw new StartError(exitCode, server.lastWords());
    return server;
  }

  /** Stops at once; resolves when the process has ended. */
  async stop(): Promise<void> {
    this.child.kill('SIGINT');
    await this.exited;
  }

  private addLog(text: string): void {
    const lines = (this.partLine + text).split('\n');
    this.partLine = lines.pop()!;
    for (const line of lines) {
      // The first time, and after an update, this takes a minute or more.
      if (line.startsWith('build: ')) process.stderr.write(`${line}\n`);
      else if (line !== '') this.logLines.push(line);
    }
    this.logLines.splice(0, this.logLines.length - maxLogLines);
  }

  private lastWords(): string {
    const own = this.logLines.findLast((line) => line.startsWith('vllm-ts: '));
    const error = this.logLines.findLast((line) => line.includes(' FATAL '));
    return own?.slice('vllm-ts: '.length) ?? error ?? this.logLines.at(-1) ?? 'the server ended';
  }
}

/** { maxModelLen: 512, enablePrefixCaching: false } -> --max-model-len 512 --no-enable-prefix-caching */
export function flagArguments(flags: Readonly<Record<string, FlagValue>>): string[] {
  return Object.entries(flags).flatMap(([name, value]) => {
    const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    if (value === null) return [];
    if (typeof value === 'boolean') return [value ? `--${flag}` : `--no-${flag}`];
    if (Array.isArray(value)) return value.flatMap((one) => [`--${flag}`, String(one)]);
    return [`--${flag}`, typeof value === 'object' ? JSON.stringify(value) : String(value)];
  });
}
