// kill -9 of each process: what clients see, and that the next request is served.
import t from 'tap';
import { CompletionStream, get, metricBecomes, post, servesAgain } from './client.ts';
import { limitMs, startServer, type Server } from './server.ts';

t.setTimeout(10 * limitMs);

const short = { prompt: 'Once', max_tokens: 8, temperature: 0 };
const long = { prompt: 'Once upon a time', max_tokens: 1500, ignore_eos: true };

async function kill(server: Server, name: string): Promise<void> {
  process.kill(await server.child(name), 'SIGKILL');
}

for (const name of ['worker 0', 'detokenizer'])
  t.test(
    `kill -9 of the ${name}: open streams end with an error, the server goes on`,
    async (t) => {
      const server = await startServer(t);
      const before = await post(server, '/v1/completions', short);
      const streams = await Promise.all([1, 2, 3].map(() => CompletionStream.open(server, long)));
      await Promise.all(streams.map((stream) => stream.started()));
      const old = await server.child(name);
      await kill(server, name);
      for (const stream of streams) {
        await stream.ended;
        t.notOk(stream.isDone, 'no [DONE] after an error');
        t.ok(stream.error!.code >= 500, stream.error!.message);
      }
      await servesAgain(t, server, short);
      t.not(await server.child(name), old);
      const after = await post(server, '/v1/completions', short);
      t.same(texts(after.body), texts(before.body), 'the same tokens as before');
      t.equal((await get(server, '/health')).status, 200);
      server.kill('SIGTERM');
      t.same(await server.exited, { code: 0, signal: null });
    },
  );

t.test(
  'kill -9 of the frontend: connections break, the port stays, the engine forgets',
  async (t) => {
    const server = await startServer(t);
    const stream = await CompletionStream.open(server, long);
    await stream.started();
    await kill(server, 'frontend 0');
    await stream.ended;
    t.notOk(stream.isDone);
    await servesAgain(t, server, short);
    await server.waitFor(() => true);
    let running = NaN;
    for (let i = 0; running !== 0 && i < 1800; i++) {
      const { body } = await get(server, '/metrics');
      running = Number(/^vllm:num_requests_running\{.*\} (\S+)$/m.exec(String(body))?.[1]);
      if (running !== 0) await new Promise((resolve) => setTimeout(resolve, 100));
    }
    t.equal(running, 0, 'its requests were aborted');
  },
);

t.test('a frontend that is replaced goes on with the counters of the engine', async (t) => {
  const server = await startServer(t);
  const firstTokens = 'time_to_first_token_seconds_count';
  t.equal(await metricBecomes(server, firstTokens, 0), 0, 'there before the first request');
  await servesAgain(t, server, short);
  t.equal(await metricBecomes(server, firstTokens, 1), 1);
  await kill(server, 'frontend 0');
  await server.waitFor(() => server.stderr.includes('frontend 0 is ready again'));
  t.equal(await metricBecomes(server, firstTokens, 1), 1, 'without another request');
});

t.test('kill -9 of the engine: streams are told, the server ends with the cause', async (t) => {
  const server = await startServer(t);
  const stream = await CompletionStream.open(server, long);
  await stream.started();
  await kill(server, 'engine');
  await stream.ended;
  t.notOk(stream.isDone);
  t.match(stream.error, { code: 503 });
  t.same(await server.exited, { code: 1, signal: null });
  const lastLine = server.stderr.trim().split('\n').at(-1);
  t.match(
    lastLine,
    /FATAL \[supervisor\] server ended cause="killed by SIGKILL" in=engine exitCode=1$/,
  );
});

t.test('three deaths are too many', async (t) => {
  const server = await startServer(t, ['--log-format', 'json']);
  for (let deaths = 1; deaths <= 3; deaths++) {
    await kill(server, 'worker 0');
    if (deaths < 3) await servesAgain(t, server, short);
  }
  t.same(await server.exited, { code: 1, signal: null });
  const lastLine = JSON.parse(server.stderr.trim().split('\n').at(-1)!) as object;
  t.match(lastLine, { level: 60, in: 'worker 0', exitCode: 1, cause: /3 deaths in ten minutes/ });
});

const texts = (body: unknown) =>
  (body as { choices: readonly { text: string }[] }).choices.map(({ text }) => text);
