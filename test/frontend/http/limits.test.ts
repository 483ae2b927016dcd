// Limits that flags set: each is refused by name one above it, and taken where it is raised; slow
// and numerous connections.
import { Agent, request } from 'node:http';
import t from 'tap';
import { defaultHttpLimits, type HttpLimits } from '../../../common/limits.ts';
import { clientOf } from '../../../frontend/http/connections.ts';
import { defaultTimeouts, type HttpTimeouts } from '../../../frontend/http/app.ts';
import { startServer } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const withLimits = (limits: Partial<HttpLimits>) => ({
  limits: { ...defaultHttpLimits, ...limits },
});

const list = (length: number) => Array.from({ length }, () => 'a');
const biases = (length: number) =>
  Object.fromEntries(Array.from({ length }, (_, i) => [String(i), 1]));

/** [limit, its name in the error, a body that is just too large by default, a limit that takes it] */
const bounds: readonly (readonly [keyof HttpLimits, string | null, object, number, number])[] = [
  ['n', 'n', { n: 129 }, 129, 400],
  ['stop', 'stop', { stop: list(17) }, 17, 400],
  ['stopBytes', 'stop', { stop: 'a'.repeat(257) }, 257, 400],
  ['choices', 'prompt', { prompt: list(1025) }, 1025, 400],
  ['jsonDepth', null, { x: JSON.parse('['.repeat(64) + ']'.repeat(64)) as unknown }, 65, 400],
  ['bodyBytes', null, { x: 'a'.repeat(4 * 1024 * 1024) }, 5 * 1024 * 1024, 413],
];

for (const [limit, param, fields, raised, status] of bounds)
  t.test(`the limit ${limit} holds, and can be raised`, async (t) => {
    const body = { prompt: 'a', ...fields };
    const tight = await startServer(t);
    const refused = await tight.post('/v1/completions', body);
    t.equal(refused.status, status);
    t.match(await refused.json(), { error: { param } });
    const wide = await startServer(t, withLimits({ [limit]: raised }));
    t.equal((await wide.post('/v1/completions', body)).status, 200);
  });

t.test('limits can be lowered', async (t) => {
  const server = await startServer(t, withLimits({ logitBias: 2, n: 1, headerBytes: 1024 }));
  const post = (body: object, headers = {}) =>
    server.post(
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: 'a' }], ...body },
      headers,
    );
  t.equal((await post({ logit_bias: biases(2) })).status, 200);
  t.match(await (await post({ logit_bias: biases(3) })).json(), { error: { param: 'logit_bias' } });
  t.match(await (await post({ n: 2 })).json(), { error: { param: 'n' } });
  const client = await RawClient.open(server.port);
  client.socket.write(
    `GET /health HTTP/1.1\r\nhost: localhost\r\nx-large: ${'a'.repeat(1024)}\r\n\r\n`,
  );
  await client.closed();
  t.match(client.text, /^HTTP\/1.1 431 /);
});

t.test('connections beyond the cap of an address get 503 until others have closed', async (t) => {
  const server = await startServer(t, withLimits({ connectionsPerAddress: 2 }));
  const first = await RawClient.open(server.port);
  const second = await RawClient.open(server.port);
  const third = await RawClient.open(server.port);
  await third.closed();
  t.match(third.text, /^HTTP\/1.1 503 .*2 connections from this address already/s);
  first.leave();
  second.post('/v1/completions', { prompt: 'a' });
  await second.until((text) => text.includes('Hello'));
  for (;;) {
    // The server hears of the first one's end in its own time.
    const next = await RawClient.open(server.port);
    next.post('/v1/completions', { prompt: 'a' });
    const text = await next.until((said) => said.includes('\r\n\r\n'));
    next.leave();
    if (text.startsWith('HTTP/1.1 200')) break;
    t.match(text, /^HTTP\/1.1 503/);
  }
  second.leave();
});

t.test('connections beyond the cap of all get 503', async (t) => {
  const server = await startServer(t, withLimits({ connections: 1, connectionsPerAddress: 0 }));
  const first = await RawClient.open(server.port);
  const second = await RawClient.open(server.port);
  await second.closed();
  t.match(second.text, /^HTTP\/1.1 503 .*there are 1 connections already/s);
  first.leave();
});

t.test('a connection is closed after its last request', async (t) => {
  const server = await startServer(t, withLimits({ requestsPerConnection: 2 }));
  const client = await RawClient.open(server.port);
  client.post('/v1/completions', { prompt: 'a' });
  await client.until((text) => text.includes('Hello'));
  t.notMatch(client.text, /connection: close/i);
  client.post('/v1/completions', { prompt: 'a' });
  await client.closed();
  t.match(client.text, /connection: close/i);
  t.equal(client.text.split('Hello').length, 3, 'both were answered');
});

t.test('a client of IPv6 is its /64', (t) => {
  t.equal(clientOf('192.0.2.7'), '192.0.2.7');
  t.equal(clientOf('::ffff:192.0.2.7'), '192.0.2.7');
  t.equal(clientOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64');
  t.equal(clientOf('2001:db8:1:2::6'), clientOf('2001:db8:1:2:3::'));
  t.equal(clientOf('2001:db8::1'), '2001:db8:0:0::/64');
  t.equal(clientOf('::1'), '0:0:0:0::/64');
  t.equal(clientOf('fe80::1%eth0'), 'fe80:0:0:0::/64');
  t.end();
});

const never = 600_000;
const patient: HttpTimeouts = {
  ...defaultTimeouts,
  headersMs: never,
  requestMs: never,
  keepAliveMs: never,
  checkMs: 20,
};

t.test('headers that do not end cost the connection', async (t) => {
  const timeouts = { ...patient, headersMs: 100 };
  const server = await startServer(t, {}, { timeouts });
  const silent = await RawClient.open(server.port);
  const slow = await RawClient.open(server.port);
  slow.socket.write('POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nx-slow: ');
  await slow.closed();
  t.match(slow.text, /^HTTP\/1.1 408 /);
  await silent.closed();
  t.equal((await server.post('/v1/completions', { prompt: 'a' })).status, 200);
});

t.test('a body that does not end costs the connection', async (t) => {
  const timeouts = { ...patient, headersMs: 100, requestMs: 150 };
  const server = await startServer(t, {}, { timeouts });
  const slow = await RawClient.open(server.port);
  slow.socket.write(
    'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n' +
      'content-length: 100\r\n\r\n{"prompt"',
  );
  await slow.closed();
  t.equal(server.server.numOpen, 0);
});

t.test('an idle connection is closed', async (t) => {
  const server = await startServer(t, {}, { timeouts: { ...patient, keepAliveMs: 100 } });
  const agent = new Agent({ keepAlive: true });
  t.teardown(() => agent.destroy());
  await new Promise<void>((resolve, reject) => {
    const sent = request(`${server.url}/health`, { agent }, (response) => response.resume());
    sent.on('error', reject);
    sent.on('socket', (socket) => socket.once('close', () => resolve()));
    sent.end();
  });
  t.equal(server.server.numOpen, 0);
});
