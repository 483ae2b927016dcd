// How long what the tests only wait for takes: what an idle server costs, and the time from a client,
// a process or a signal that goes to the server that has noticed. The demo model on this machine.
//
//   node dist/scripts/bench-deadlines.js
import { spawn } from 'node:child_process';
import { request, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../common/package-root.ts';
import { readArguments } from './arguments.ts';
import { descendants, ticksOf, titleOf } from './bench/processes.ts';

readArguments('bench-deadlines', import.meta.url);
const command = join(packageRoot, 'scripts/vllm-ts.mjs');
const settleSeconds = 25;
const idleSeconds = 20;
const ticksPerSecond = 100;

const child = spawn(process.execPath, [command, 'serve', '--port', '0'], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, VLLM_LOGGING_LEVEL: 'ERROR' },
});
const exited = new Promise((resolve) => child.on('exit', resolve));
let out = '';
child.stdout.on('data', (text: Buffer) => (out += text.toString()));
await until(() => out.includes('try: '));
const url = /url=(\S+)/.exec(out)![1]!;

// In its first 20 s V8 collects what the start has left, once a process.
await sleep(settleSeconds * 1000);
const before = numTicks();
await sleep(idleSeconds * 1000);
const share = (100 * (numTicks() - before)) / ticksPerSecond / idleSeconds;
print('idle, all processes', `${share.toFixed(2)} % of a core`, '1 %');

const gone = await openStream();
await measure('client gone: no request runs any more', '', async () => {
  gone.destroy();
  await until(isIdle);
});
await openStream();
await measure('frontend killed: it serves again, and its request is gone', '2 s', async () => {
  process.kill(pidOf('frontend 0'), 'SIGKILL');
  await until(isIdle);
});
await openStream();
await measure('worker killed: a request is served again', '', async () => {
  process.kill(pidOf('worker 0'), 'SIGKILL');
  await until(async () => (await complete()) === 200);
});
await openStream();
await measure('SIGINT: the server has ended', '', async () => {
  child.kill('SIGINT');
  await exited;
});

/** Runs something and prints how long it took. */
async function measure(what: string, deadline: string, run: () => Promise<void>): Promise<void> {
  const startMs = performance.now();
  await run();
  print(what, `${(performance.now() - startMs).toFixed(0)} ms`, deadline);
}

function print(what: string, took: string, deadline: string): void {
  const limit = deadline === '' ? '' : `   deadline ${deadline}`;
  process.stdout.write(`${what.padEnd(60)} ${took.padStart(16)}${limit}\n`);
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(10);
}

/** A long stream that has begun. */
function openStream(): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const body = JSON.stringify({
      prompt: 'Once',
      max_tokens: 2000,
      ignore_eos: true,
      stream: true,
    });
    const headers = { 'content-type': 'application/json' };
    const sent = request(`${url}/v1/completions`, { method: 'POST', headers }, (response) => {
      response.on('error', () => undefined).once('data', () => resolve(response));
    });
    sent.on('error', reject).end(body);
  });
}

async function complete(): Promise<number> {
  try {
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', connection: 'close' },
      body: JSON.stringify({ prompt: 'Once', max_tokens: 1 }),
    });
    await response.text();
    return response.status;
  } catch {
    return 0;
  }
}

/** By the engine's own word, as /metrics has it. */
async function isIdle(): Promise<boolean> {
  try {
    const response = await fetch(`${url}/metrics`, { headers: { connection: 'close' } });
    return /^vllm:num_requests_running\{.*\} 0$/m.test(await response.text());
  } catch {
    return false;
  }
}

function pidOf(name: string): number {
  return descendants(child.pid!).find((pid) => titleOf(pid) === `vllm-ts: ${name}`)!;
}

/** Processor time that the server has taken so far. */
function numTicks(): number {
  return [child.pid!, ...descendants(child.pid!)].reduce((sum, pid) => sum + ticksOf(pid), 0);
}
