// How long what the tests only wait for takes: what an idle server costs, and the time from a client,
// a process or a signal that goes to the server that has noticed. The demo model on this machine.
//
//   node scripts/bench-deadlines.mjs
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const command = fileURLToPath(new URL('vllm-ts.mjs', import.meta.url));
const idleSeconds = 20;
const ticksPerSecond = 100;

const child = spawn(process.execPath, [command, 'serve', '--port', '0'], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, VLLM_LOGGING_LEVEL: 'ERROR' },
});
const exited = new Promise((resolve) => child.on('exit', resolve));
let out = '';
child.stdout.on('data', (text) => (out += text));
await until(() => out.includes('try: '));
const url = /url=(\S+)/.exec(out)[1];

await sleep(3000);
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
async function measure(what, deadline, run) {
  const startMs = performance.now();
  await run();
  print(what, `${(performance.now() - startMs).toFixed(0)} ms`, deadline);
}

function print(what, took, deadline) {
  console.log(`${what.padEnd(60)} ${took.padStart(16)}   ${deadline && `deadline ${deadline}`}`);
}

async function until(condition) {
  while (!(await condition())) await sleep(10);
}

/** A long stream that has begun. */
function openStream() {
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

async function complete() {
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
async function isIdle() {
  try {
    const response = await fetch(`${url}/metrics`, { headers: { connection: 'close' } });
    return /^vllm:num_requests_running\{.*\} 0$/m.test(await response.text());
  } catch {
    return false;
  }
}

/** The server's processes: [pid, title]. */
function processes() {
  const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const parentOf = (pid) => Number(/^PPid:\s+(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1]);
  return [String(child.pid), ...all.filter((pid) => parentOf(pid) === child.pid)].map((pid) => [
    Number(pid),
    read(`/proc/${pid}/cmdline`).split('\0')[0],
  ]);
}

function pidOf(name) {
  return processes().find(([, title]) => title === `vllm-ts: ${name}`)[0];
}

/** Processor time that the server has taken so far. */
function numTicks() {
  return processes().reduce((sum, [pid]) => {
    const fields = read(`/proc/${pid}/stat`)
      .replace(/^.*\) /, '')
      .split(' ');
    return sum + Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }, 0);
}

function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
