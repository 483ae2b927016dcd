// Two servers of the same ranks: one on this host alone, and one whose ranks are spread over two
// supervisors that know each other as hosts, a GPU each. Both must give the same tokens.
//
//   node scripts/try-two-hosts.mjs [--device cuda] [--model FOLDER] [--port 29700]
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { readArguments, readNumber } from './build/arguments.mjs';

const { values: options } = readArguments('try-two-hosts', import.meta.url, {
  options: {
    device: { type: 'string', default: 'cuda' },
    model: { type: 'string' },
    port: { type: 'string', default: '29700' },
  },
});
readNumber('try-two-hosts', '--port', options.port);
const cli = fileURLToPath(new URL('vllm-ts.mjs', import.meta.url));
const model = options.model ? [options.model] : [];
const common = ['-tp', '2', '--device', options.device, '--port', '0', '--max-model-len', '512'];
const prompts = ['Once upon a time', 'The', 'A list of numbers: 1, 2, 3', 'In the beginning'];
const started = [];

function start(name, flags, env = {}) {
  const child = spawn(process.execPath, [cli, 'serve', ...model, ...common, ...flags], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  createInterface(child.stderr).on('line', (line) => {
    if (/collectives|error|warn/i.test(line)) console.log(`${name}: ${line}`);
  });
  return child;
}

async function ready(child) {
  for await (const line of createInterface(child.stdout)) {
    const found = /url=(\S+)/.exec(line);
    if (found) return found[1];
  }
  throw new Error('the server ended before it was ready');
}

async function ask(url, prompt, more = {}) {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt, max_tokens: 48, ignore_eos: true, temperature: 0, ...more }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(JSON.stringify(answer));
  return answer.choices[0].text;
}

/** Greedy and seeded, alone and all at once. */
async function answers(url) {
  const alone = [];
  for (const prompt of prompts) alone.push(await ask(url, prompt));
  const seeded = { temperature: 0.9, seed: 7 };
  const together = await Promise.all(
    prompts.flatMap((prompt) => [ask(url, prompt), ask(url, prompt, seeded)]),
  );
  const again = together.filter((_, i) => i % 2 === 0);
  if (JSON.stringify(again) !== JSON.stringify(alone)) throw new Error('other tokens in a batch');
  return together;
}

async function stop() {
  const children = started.splice(0).filter((child) => child.exitCode === null);
  for (const child of children) child.kill('SIGINT');
  await Promise.all(children.map((child) => once(child, 'exit')));
}

try {
  const one = await answers(await ready(start('one host', [])));
  await stop();
  const node = (rank) => [
    ...['--nnodes', '2', '--node-rank', String(rank), '--master-addr', '127.0.0.1'],
    ...['--master-port', options.port],
  ];
  const env = (rank) => ({
    VLLM_TS_NODE_KEY: 'a key for two hosts of one machine',
    VLLM_HOST_IP: '127.0.0.1',
    CUDA_VISIBLE_DEVICES: (process.env.CUDA_VISIBLE_DEVICES ?? '0,1').split(',')[rank],
  });
  const begin = performance.now();
  const head = start('head', node(0), env(0));
  start('node', [...node(1), '--headless'], env(1));
  const url = await ready(head);
  console.log(`two hosts: ready in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  const two = await answers(url);
  const same = one.filter((text, i) => text === two[i]).length;
  console.log(`two hosts: ${same} of ${one.length} answers are those of one host`);
  process.exitCode = same === one.length ? 0 : 1;
} catch (error) {
  console.log(`two hosts: ${error.message}`);
  process.exitCode = 1;
} finally {
  await stop();
}
