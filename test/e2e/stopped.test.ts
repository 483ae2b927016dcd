// SIGSTOP: a process that stands still is found, named and replaced, or ends the server; a server
// that stands still as a whole goes on where it was.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { CompletionStream, get, metricBecomes, post, servesAgain } from './client.ts';
import { descendants, limitMs, runServer, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

const short = { prompt: 'Once', max_tokens: 8, temperature: 0 };
const long = { prompt: 'Once upon a time', max_tokens: 1500, ignore_eos: true };

for (const name of ['worker 0', 'detokenizer'])
  t.test(`a stopped ${name} is named and replaced`, async (t) => {
    const server = await startServer(t);
    const before = await post(server, '/v1/completions', short);
    const stream = await CompletionStream.open(server, long);
    await stream.started();
    const old = await server.child(name);
    process.kill(old, 'SIGSTOP');
    await stream.ended;
    t.notOk(stream.isDone, 'no [DONE] after an error');
    t.ok(stream.error!.code >= 500, stream.error!.message);
    await servesAgain(t, server, short);
    t.not(await server.child(name), old);
    t.match(server.stderr, new RegExp(`${name} is given up: no sign of life for \\d+ ms`));
    const after = await post(server, '/v1/completions', short);
    t.same(after.body, { ...(before.body as object), ...own(after.body) }, 'the same answer');
  });

/** What differs from answer to answer. */
function own(body: unknown): object {
  const { id, created } = body as { id: string; created: number };
  return { id, created };
}

t.test('a stopped engine is named, and the server ends', async (t) => {
  const server = await startServer(t);
  const stream = await CompletionStream.open(server, long);
  await stream.started();
  process.kill(await server.child('engine'), 'SIGSTOP');
  await server.waitFor(() => server.stderr.includes('engine is given up'));
  await stream.ended;
  t.match(stream.error, { code: 503 });
  t.same(await server.exited, { code: 1, signal: null });
  const lastLine = server.stderr.trim().split('\n').at(-1);
  t.match(lastLine, /server ended cause="no sign of life for \d+ ms" in=engine exitCode=1$/);
});

/** Seconds of silence: far below the default, and still more than a busy machine takes away. */
const patience = ['--liveness-timeout', '10'];

t.test('with time to wait', { jobs: 3 }, (t) => {
  // They mostly sleep, all at the same time.
  const aside = { buffered: true };

  t.test('an idle server is not found guilty of silence', aside, async (t) => {
    const server = await startServer(t);
    await post(server, '/v1/completions', short);
    // The engine has said that it is done.
    t.equal(await metricBecomes(server, 'generation_tokens_total', 8), 8);
    process.kill(await server.child('engine'), 'SIGSTOP');
    // Nobody asked the engine for anything: nothing is owed.
    await sleep(6000);
    t.equal((await get(server, '/health')).status, 200);
    process.kill(await server.child('engine'), 'SIGCONT');
    t.equal((await post(server, '/v1/completions', short)).status, 200);
  });

  t.test('a server that was stopped as a whole goes on', aside, async (t) => {
    const server = await startServer(t);
    const whole = await CompletionStream.open(server, { ...long, seed: 1, return_token_ids: true });
    await whole.ended;
    const stream = await CompletionStream.open(server, {
      ...long,
      seed: 1,
      return_token_ids: true,
    });
    await stream.started();
    const all = [server.pid, ...descendants(server.pid)];
    for (const pid of all) process.kill(pid, 'SIGSTOP');
    await sleep(7000);
    for (const pid of all) process.kill(pid, 'SIGCONT');
    await stream.ended;
    t.ok(stream.isDone);
    t.same(stream.tokenIds, whole.tokenIds);
    t.notMatch(server.stderr, /given up|died/);
  });

  t.test('a stopped frontend is named and replaced, and its requests end', aside, async (t) => {
    const server = await startServer(t, patience);
    const stream = await CompletionStream.open(server, long);
    await stream.started();
    const old = await server.child('frontend 0');
    process.kill(old, 'SIGSTOP');
    await stream.ended;
    t.notOk(stream.isDone, 'no [DONE] after its end');
    await servesAgain(t, server, short);
    t.not(await server.child('frontend 0'), old);
    t.match(server.stderr, /frontend 0 is given up: no sign of life for \d+ ms/);
    t.equal(await metricBecomes(server, 'num_requests_running', 0), 0, 'the engine has let go');
  });

  t.test('a stopped engine is found where no frontend of ours would find it', aside, async (t) => {
    const folder = join(mkdtempSync(join(tmpdir(), 'vt-')), 'run');
    t.teardown(() => rmSync(join(folder, '..'), { recursive: true, force: true }));
    const server = runServer(t, ['--headless', '--frontend-address', folder, ...patience]);
    await server.waitReady();
    process.kill(await server.child('engine'), 'SIGSTOP');
    t.same(await server.exited, { code: 1, signal: null });
    const lastLine = server.stderr.trim().split('\n').at(-1);
    t.match(lastLine, /server ended cause="no sign of life for \d+ ms" in=engine exitCode=1$/);
  });

  t.test('nobody is blamed for what a stopped supervisor did not hear', aside, async (t) => {
    const server = await startServer(t, patience);
    const before = server.children();
    for (const pids of [[server.pid], [server.pid, ...descendants(server.pid)]]) {
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      await sleep(12_000);
      for (const pid of pids) process.kill(pid, 'SIGCONT');
      // The watch has looked again since, and each process had the time to be killed.
      await sleep(3000);
      t.equal((await post(server, '/v1/completions', short)).status, 200);
    }
    t.same(server.children(), before);
    t.notMatch(server.stderr, /given up|died/);
  });
  t.end();
});
