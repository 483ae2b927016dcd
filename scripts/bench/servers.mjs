// Servers that a benchmark starts for itself: vllm-ts of this checkout, and llama.cpp's. Each gets a
// free port, is ready when it answers /health, and ends with the benchmark.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const command = fileURLToPath(new URL('../vllm-ts.mjs', import.meta.url));

export const startVllmTs = ({ model, threads, streams, contextTokens, flags = [] }) =>
  start('vllm-ts', process.execPath, (port) => [
    command, 'serve', model, '--device', 'cpu', '--port', port, '--threads', threads,
    '--max-num-seqs', streams, '--max-model-len', contextTokens, '--disable-log-stats', ...flags,
  ]); // prettier-ignore

/** `program` is llama-server; its slots share a context as large as all of them need. */
export const startLlamaCpp = ({ program, gguf, threads, streams, contextTokens, flags = [] }) =>
  start('llama.cpp', program, (port) => [
    '--model', gguf, '--host', '127.0.0.1', '--port', port, '--threads', threads,
    '--threads-batch', threads, '--parallel', streams, '--ctx-size', streams * contextTokens, ...flags,
  ]); // prettier-ignore

async function start(name, program, args) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = spawn(program, args(port).map(String), { stdio: ['ignore', 'ignore', 'pipe'] });
  const kill = () => child.kill('SIGKILL');
  process.on('exit', kill);
  let log = '';
  child.stderr.setEncoding('utf8');
  child.stderr.on('data', (text) => (log = (log + text).slice(-4000)));
  const exited = new Promise((resolve) => child.on('exit', resolve).on('error', resolve));
  let hasExited = false;
  exited.then(() => (hasExited = true));
  for (;;) {
    if (hasExited) throw new Error(`${name} ended before it was ready:\n${log}`);
    const response = await fetch(`${url}/health`).catch(() => null);
    if (response?.status === 200) break;
    await sleep(50);
  }
  const stop = async () => {
    child.kill('SIGINT');
    await exited;
    process.off('exit', kill);
  };
  return { name, url, stop };
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
