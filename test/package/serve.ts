// Starts the server as a user would, in any folder and environment, and asks it one question.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

export interface Served {
  readonly url: string;
  readonly child: ChildProcess;
  /** From the first line of a build to the address; 0 where nothing was built. */
  readonly msSinceBuild: number;
  /** What it has written so far, stdout and stderr. */
  output(): string;
  /** SIGTERM; resolves to the exit code. */
  stop(): Promise<number | null>;
}

/** Runs `command` and waits for the address in its output. Throws with the output if it ends first. */
export async function serve(
  command: string,
  args: readonly string[],
  options: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<Served> {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const buildSeenMs: number[] = [];
  const url = await new Promise<string>((resolve, reject) => {
    const read = (chunk: Buffer) => {
      output += chunk.toString();
      const match = /https?:\/\/[\w.:[\]]+:\d+/.exec(output);
      if (match) resolve(match[0]);
    };
    child.stdout.on('data', read);
    child.stderr.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes('build: ')) buildSeenMs.push(performance.now());
    });
    child.on('error', reject);
    child.on('exit', (code) => {
      reject(new Error(`ended with ${code ?? 'a signal'} before it was ready:\n${output}`));
    });
  });
  const nowMs = performance.now();
  const msSinceBuild = nowMs - (buildSeenMs[0] ?? nowMs);
  const exited = once(child, 'exit') as Promise<[number | null]>;
  return {
    url,
    child,
    msSinceBuild,
    output: () => output,
    stop: async () => {
      child.kill('SIGTERM');
      return (await exited)[0];
    },
  };
}

/** Eight greedy tokens for a fixed prompt. */
export async function complete(url: string): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'Once upon a time', max_tokens: 8, temperature: 0 }),
  });
  const body = (await response.json()) as { choices?: { text: string }[] };
  if (!response.ok || !body.choices) throw new Error(JSON.stringify(body));
  return body.choices[0]!.text;
}
