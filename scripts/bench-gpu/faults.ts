// A whole server of several ranks under load, of which one is killed or stopped: found within 5 s,
// named, all ranks replaced, and the next request gets the same tokens as before.
//
//   node dist/scripts/bench-gpu/faults.js --ranks 2 [--model demo] [--device cuda]
//
// A model is the demo model, or a shape of shapes.ts with made-up weights. Where there are fewer
// GPUs than ranks one line says so, and nothing is checked.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../common/package-root.ts';
import { readArguments, readNumber } from '../arguments.ts';
import { descendants, titleOf } from '../bench/processes.ts';
import { shapes, writeShape, type ShapeName } from './shapes.ts';

const { values: options } = readArguments('faults', import.meta.url, {
  options: {
    ranks: { type: 'string', default: '2' },
    model: { type: 'string', default: 'demo' },
    device: { type: 'string', default: 'cuda' },
  },
});
const numRanks = readNumber('faults', '--ranks', options.ranks);
const foundWithinMs = 5000;
const print = (line: string) => process.stdout.write(`${line}\n`);

function numGpus(): number {
  const run = spawnSync('nvidia-smi', ['-L'], { encoding: 'utf8' });
  return run.error ? 0 : [...run.stdout.matchAll(/^GPU /gm)].length;
}

if (options.device === 'cuda' && numGpus() < numRanks) {
  print(`faults: ${numRanks} GPUs are needed, ${numGpus()} are here; nothing was checked`);
  process.exit(0);
}

const demo = join(packageRoot, 'models/demo');
const made = Object.hasOwn(shapes, options.model);
const begin = performance.now();
const server = spawn(
  process.execPath,
  [
    join(packageRoot, 'scripts/vllm-ts.mjs'),
    'serve',
    made ? writeShape(join(tmpdir(), 'vllm-ts-bench'), options.model as ShapeName) : demo,
    ...(made ? ['--tokenizer', demo, '--load-format', 'dummy'] : []),
    ...['--device', options.device, '--tensor-parallel-size', options.ranks],
    ...['--max-model-len', '2048', '--max-num-seqs', '32', '--port', '0'],
    ...(options.device === 'cuda' ? ['--gpu-memory-utilization', '0.6'] : []),
  ],
  { stdio: ['ignore', 'pipe', 'pipe'] },
);
let output = '';
let log = '';
server.stdout.on('data', (text: Buffer) => (output += text.toString()));
server.stderr.on('data', (text: Buffer) => (log += text.toString()));

let faults = 0;
function check(good: boolean, what: string): void {
  if (!good) faults++;
  print(`${good ? 'ok ' : 'BAD'} ${what}`);
}

async function ready(): Promise<string> {
  while (!/url=\S+/.test(output)) {
    if (server.exitCode !== null) throw new Error(`the server ended:\n${log}`);
    await sleep(10);
  }
  return /url=(\S+)/.exec(output)![1]!;
}

/** Process ids by rank. */
function ranks(): number[] {
  const found: number[] = [];
  for (const pid of descendants(server.pid!)) {
    const rank = /^vllm-ts: worker (\d+)/.exec(titleOf(pid))?.[1];
    if (rank !== undefined) found[Number(rank)] = pid;
  }
  return found;
}

const post = (url: string, body: object) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ temperature: 0, ignore_eos: true, return_token_ids: true, ...body }),
  });

/** Token ids of a short answer, or null where the server says that it cannot now. */
async function answer(url: string): Promise<string | null> {
  try {
    const response = await post(url, { prompt: [1, 5, 9, 42], max_tokens: 8 });
    const { choices } = (await response.json()) as { choices?: { token_ids: number[] }[] };
    return choices?.[0]?.token_ids.join(' ') ?? null;
  } catch {
    return null;
  }
}

/** A long answer: `started` once the first token is there, `error` at its end. */
function stream(url: string) {
  let start = () => {};
  const started = new Promise<void>((resolve) => (start = resolve));
  const read = async () => {
    const response = await post(url, { prompt: [1, 7], max_tokens: 2000, stream: true });
    let text = '';
    for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
      text += part;
      if (text.includes('data: ')) start();
    }
    start();
    return /"message":\s*"((?:[^"\\]|\\.)*)"/.exec(text)?.[1] ?? null;
  };
  return { started, error: read() };
}

async function tryFault(url: string, signal: 'SIGKILL' | 'SIGSTOP', rank: number): Promise<void> {
  const name = `${signal} of rank ${rank} of ${numRanks}`;
  const before = await answer(url);
  const old = ranks();
  const streams = Array.from({ length: 8 }, () => stream(url));
  await Promise.all(streams.map(({ started }) => started));
  const at = performance.now();
  process.kill(old[rank]!, signal);
  const errors = await Promise.all(streams.map(({ error }) => error));
  const foundMs = performance.now() - at;
  const message = errors[0] ?? '';
  check(
    foundMs < foundWithinMs && errors.every((error) => error?.includes(`worker ${rank} was lost`)),
    `${name}: found after ${foundMs.toFixed(0)} ms: ${message}`,
  );
  let after = await answer(url);
  while (after === null && performance.now() - at < 60_000) {
    await sleep(20);
    after = await answer(url);
  }
  const servedMs = performance.now() - at;
  const fresh = ranks();
  const replaced = fresh.length === numRanks && fresh.every((pid) => !old.includes(pid));
  check(
    after !== null && after === before && replaced,
    `${name}: ${replaced ? 'all ranks replaced' : 'ranks are left'}, served again after ` +
      `${servedMs.toFixed(0)} ms, ${after === before ? 'the same tokens' : `${after}, not ${before}`}`,
  );
}

try {
  const url = await ready();
  const readyMs = performance.now() - begin;
  check((await answer(url)) !== null, 'the first request is served');
  const firstMs = performance.now() - begin;
  print(
    `${options.model}, ${numRanks} ranks: ready after ${readyMs.toFixed(0)} ms, 8 tokens after ${firstMs.toFixed(0)} ms`,
  );
  await tryFault(url, 'SIGKILL', numRanks - 1);
  await tryFault(url, 'SIGSTOP', 0);
} catch (error) {
  check(false, error instanceof Error ? error.message : String(error));
}
server.kill('SIGTERM');
if (server.exitCode === null) await once(server, 'exit');
if (faults > 0) print(log.split('\n').slice(-25).join('\n'));
print(`${faults} faults`);
process.exit(faults === 0 ? 0 : 1);
