// How a server starts, is found, drains and ends; and that nothing of it stays behind.
import { readdirSync, readFileSync, rmSync, mkdtempSync } from 'node:fs';
import { get as httpGet } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { CompletionStream, get, post } from './client.ts';
import {
  limitMs,
  descendants,
  runCommand,
  runServer,
  serveCommand,
  startServer,
  waitGone,
  type Server,
} from './server.ts';

t.setTimeout(10 * limitMs);

/** Long enough to be under way when the test acts. */
const longRequest = { prompt: 'Once upon a time', max_tokens: 1500, ignore_eos: true };

async function longStream(server: Server): Promise<CompletionStream> {
  const stream = await CompletionStream.open(server, longRequest);
  await stream.started();
  return stream;
}

/** For drains that must end by themselves: a busy machine may take longer than the usual 30 s. */
const patient = ['--shutdown-timeout', '300'];

t.test('a server says where it is, and ends cleanly on SIGTERM', async (t) => {
  const server = await startServer(t);
  t.match(server.ready, {
    url: /^http:\/\/127\.0\.0\.1:\d+$/,
    model: 'vllm-ts-demo',
    dtype: 'f32',
    device: /cpu|reference/,
    kv_capacity_tokens: /^\d+$/,
    ready_ms: /^\d+$/,
  });
  t.same([...server.children().keys()].sort(), ['detokenizer', 'engine', 'frontend 0', 'worker 0']);
  t.equal((await get(server, '/health')).status, 200);
  const curl = /^try: (curl .*)$/m.exec(server.stdout)![1]!;
  const said = spawnSync('sh', ['-c', curl], { encoding: 'utf8' });
  if (said.error === undefined && said.status !== 127) t.match(said.stdout, /data: \[DONE\]/);
  const pids = [server.pid, ...descendants(server.pid)];
  server.kill('SIGTERM');
  t.same(await server.exited, { code: 0, signal: null });
  t.same(await waitGone(pids), []);
  t.same(readdirSync(server.runParent), [], 'the run directory is gone');
});

t.test('npx takes its server with it when it is told to end', async (t) => {
  // What npx does: the server is a child of a shell, and only the shell gets the signal.
  const npx = ['env', 'npm_command=exec', "npm_lifecycle_script='vllm-ts'"];
  const shell = ['sh', '-c', '"$0" "$@"; exit', ...serveCommand];
  const server = runCommand(t, [...npx, ...shell, '--port', '0']);
  await server.waitReady();
  const pids = descendants(server.pid);
  t.ok(pids.length >= 5);
  server.kill('SIGTERM');
  t.same(await server.exited, { code: null, signal: 'SIGTERM' });
  t.same(await waitGone(pids), []);
  t.match(server.stderr, /SIGTERM: draining[^]*server ended exitCode=0/);
});

t.test('SIGTERM lets open requests end and takes no new ones', async (t) => {
  const server = await startServer(t, patient);
  const stream = await longStream(server);
  server.kill('SIGTERM');
  await server.waitFor(() => server.stderr.includes('draining'));
  // The frontend hears of it in its own time.
  const ask = { prompt: 'Once', max_tokens: 1 };
  let status: number;
  do {
    status = await post(server, '/v1/completions', ask).then(
      (answer) => answer.status,
      () => 503,
    );
  } while (status === 200);
  t.equal(status, 503, 'a new request is refused');
  await stream.ended;
  t.ok(stream.isDone);
  t.equal(stream.finishReason, 'length');
  t.same(await server.exited, { code: 0, signal: null });
});

t.test('a drain that takes too long ends streams with an error', async (t) => {
  const server = await startServer(t, ['--shutdown-timeout', '0.2']);
  const stream = await longStream(server);
  server.kill('SIGTERM');
  await stream.ended;
  t.notOk(stream.isDone, 'no [DONE] after an error');
  t.match(stream.error, { code: 503 });
  t.same(await server.exited, { code: 0, signal: null });
});

t.test('SIGINT stops at once, and twice within milliseconds is once', async (t) => {
  const server = await startServer(t);
  const stream = await longStream(server);
  server.kill('SIGINT');
  server.kill('SIGINT');
  t.same(await server.exited, { code: 130, signal: null });
  await stream.ended;
  t.notOk(stream.isDone);
  t.same(readdirSync(server.runParent), []);
});

t.test('a second signal after 500 ms ends a drain', async (t) => {
  const server = await startServer(t);
  await longStream(server);
  const pids = descendants(server.pid);
  server.kill('SIGTERM');
  await server.waitFor(() => server.stderr.includes('draining'));
  await sleep(600);
  server.kill('SIGTERM');
  t.same(await server.exited, { code: 143, signal: null });
  t.same(await waitGone(pids), []);
});

t.test('SIGTERM to every process at once drains, as under systemd', async (t) => {
  const server = await startServer(t, patient);
  const stream = await longStream(server);
  for (const pid of [...descendants(server.pid), server.pid]) process.kill(pid, 'SIGTERM');
  await stream.ended;
  t.ok(stream.isDone);
  t.same(await server.exited, { code: 0, signal: null });
});

t.test('SIGTERM to every process while they start ends with 0', async (t) => {
  const server = runServer(t, ['--port', '0']);
  await server.waitFor(() => descendants(server.pid).length === 4);
  for (const pid of [...descendants(server.pid), server.pid]) process.kill(pid, 'SIGTERM');
  t.same(await server.exited, { code: 0, signal: null });
});

t.test('a killed supervisor leaves no process behind', async (t) => {
  const server = await startServer(t);
  await longStream(server);
  const pids = descendants(server.pid);
  t.equal(pids.length, 4);
  server.kill('SIGKILL');
  t.same(await waitGone(pids), []);
});

t.test('a server whose output nobody reads any more goes on', async (t) => {
  const server = await startServer(t, ['--enable-log-requests']);
  server.stopReading();
  const ask = { prompt: 'Once', max_tokens: 4 };
  for (let i = 0; i < 3; i++)
    t.equal((await post(server, '/v1/completions', ask)).status, 200, 'each logs a line');
  process.kill(await server.child('worker 0'), 'SIGKILL');
  let status = 0;
  for (let i = 0; status !== 200 && i < 1800; i++) {
    status = (await post(server, '/v1/completions', ask)).status;
    if (status !== 200) await sleep(100);
  }
  t.equal(status, 200, 'a death that is logged is mended all the same');
  server.kill('SIGTERM');
  t.same(await server.exited, { code: 0, signal: null });
});

t.test('two servers at once do not meet', async (t) => {
  const [a, b] = await Promise.all([startServer(t), startServer(t)]);
  const ask = { prompt: 'Once', max_tokens: 8, temperature: 0 };
  const answers = await Promise.all([a, b].map((server) => post(server, '/v1/completions', ask)));
  t.same(
    answers.map(({ status }) => status),
    [200, 200],
  );
  a.kill('SIGTERM');
  await a.exited;
  t.equal((await post(b, '/v1/completions', ask)).status, 200);
});

t.test('--uds serves on a unix socket and removes it', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-uds-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 's');
  const server = await startServer(t, ['--uds', path]);
  const status = await new Promise((resolve, reject) => {
    httpGet({ socketPath: path, path: '/health' }, (response) => {
      response.resume();
      resolve(response.statusCode);
    }).on('error', reject);
  });
  t.equal(status, 200);
  server.kill('SIGTERM');
  await server.exited;
  t.same(readdirSync(folder), []);
});

const unshare = ['unshare', '--pid', '--fork', '--mount-proc'];
const canUnshare = spawnSync(unshare[0]!, [...unshare.slice(1), 'true']).status === 0;
const skipUnshare = canUnshare ? false : 'unshare may not make a process namespace here';

t.test('the server works as process 1 of a container', { skip: skipUnshare }, async (t) => {
  const server = runCommand(t, [...unshare, ...serveCommand, '--port', '0', ...patient]);
  await server.waitReady();
  const [init] = descendants(server.pid);
  t.match(readFileSync(`/proc/${init!}/status`, 'utf8'), /^NSpid:\s+\d+\s+1$/m);
  const stream = await longStream(server);
  process.kill(init!, 'SIGTERM');
  await stream.ended;
  t.ok(stream.isDone);
  t.same(await server.exited, { code: 0, signal: null });
});
