// How long the server takes from its first line to ready: the demo model, five starts, stage by
// stage, with the load of the machine beside them. The page cache is warm from the second start on.
//
//   node scripts/bench-start.mjs [STARTS]      chrt -r 5 node scripts/bench-start.mjs  on a busy machine
import { spawn } from 'node:child_process';
import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { readNumbers } from './build/arguments.mjs';

const command = fileURLToPath(new URL('vllm-ts.mjs', import.meta.url));
const [starts = 5] = readNumbers('bench-start', import.meta.url, ['STARTS']);

/** { readyMs, stages: { name: ms } } of one start; the server says both. */
async function start() {
  const child = spawn(process.execPath, [command, 'serve', '--port', '0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, VLLM_LOGGING_LEVEL: 'DEBUG' },
  });
  let out = '';
  let log = '';
  child.stderr.on('data', (text) => (log += text));
  const exited = new Promise((resolve) => child.on('exit', resolve));
  await new Promise((resolve, reject) => {
    child.stdout.on('data', (text) => {
      out += text;
      if (/ready_ms=\d+\n/.test(out)) resolve();
    });
    exited.then(() => reject(new Error(`it ended before it was ready:\n${log}`)));
  });
  child.kill('SIGTERM');
  await exited;
  const stages = [...log.matchAll(/\[supervisor\] (.+) atMs=(\d+)/g)];
  return {
    readyMs: Number(/ready_ms=(\d+)/.exec(out)[1]),
    stages: Object.fromEntries(stages.map(([, name, ms]) => [name, Number(ms)])),
  };
}

const before = loadavg()[0];
await start();
const runs = [];
for (let i = 0; i < starts; i++) runs.push(await start());
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
for (const name of Object.keys(runs[0].stages))
  console.log(`${String(median(runs.map(({ stages }) => stages[name]))).padStart(6)} ms  ${name}`);
const ready = runs.map(({ readyMs }) => readyMs);
console.log(
  `ready_ms ${ready.join(' ')}, median ${median([...ready])}, load average ${before.toFixed(1)}`,
);
