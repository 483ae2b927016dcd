// Many clients at once: streams, clients that leave, connections that say nothing.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import t from 'tap';
import { CompletionStream, metricBecomes, post } from './client.ts';
import { limitMs, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

t.test('64 streams at once each say what they say alone', async (t) => {
  const server = await startServer(t);
  const bodies = Array.from({ length: 64 }, (_, i) => ({
    prompt: `Story number ${i} is about`,
    max_tokens: 24,
    seed: i,
    temperature: i % 2 === 0 ? 0 : 0.8,
    return_token_ids: true,
  }));
  const run = async (body: object) => {
    const stream = await CompletionStream.open(server, body);
    await stream.ended;
    t.ok(stream.isDone);
    return stream.tokenIds;
  };
  const together = await Promise.all(bodies.map(run));
  for (const i of [0, 1, 31, 63]) t.same(await run(bodies[i]!), together[i]);
  t.equal(await metricBecomes(server, 'num_requests_running', 0), 0);
});

t.test('clients that leave take their requests with them', async (t) => {
  const server = await startServer(t);
  const long = { prompt: 'Once upon a time', max_tokens: 1900, ignore_eos: true };
  const streams = await Promise.all(
    Array.from({ length: 16 }, () => CompletionStream.open(server, long)),
  );
  await Promise.all(streams.map((stream) => stream.started()));
  const whole = new AbortController();
  const unstreamed = fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(long),
    signal: whole.signal,
  }).catch(() => 'gone');
  t.equal(await metricBecomes(server, 'num_requests_running', 17), 17);
  for (const stream of streams) stream.destroy();
  whole.abort();
  t.equal(await unstreamed, 'gone');
  t.equal(await metricBecomes(server, 'num_requests_running', 0), 0);
  t.equal(await metricBecomes(server, 'kv_cache_usage_perc', 0), 0, 'every block came back');
});

t.test('1,000 idle connections do not keep the next request waiting', async (t) => {
  const server = await startServer(t);
  const port = Number(new URL(server.url).port);
  const idle: Socket[] = [];
  t.teardown(() => {
    for (const socket of idle) socket.destroy();
  });
  for (let i = 0; i < 1000; i++) idle.push(connect(port, '127.0.0.1'));
  await Promise.all(idle.map((socket) => once(socket, 'connect')));
  const { status } = await post(server, '/v1/completions', { prompt: 'Once', max_tokens: 4 });
  t.equal(status, 200);
  server.kill('SIGTERM');
  t.same(await server.exited, { code: 0, signal: null });
});
