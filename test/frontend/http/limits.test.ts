// Limits that flags set: each is refused by name one above it, and taken where it is raised; slow
// and numerous connections.
import { Agent, request } from 'node:http';
import t from 'tap';
import {
  defaultHttpLimits,
  defaultHttpTimeouts,
  type HttpLimits,
  type HttpTimeouts,
} from '../../../common/limits.ts';
import { clientOf } from '../../../frontend/http/connections.ts';
import { startServer, type TestServer } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const withLimits = (limits: Partial<HttpLimits>) => ({
  limits: { ...defaultHttpLimits, ...limits },
});

const list = (length: number) => Array.from({ length }, () => 'a');
const biases = (length: number) =>
  Object.fromEntries(Array.from({ length }, (_, i) => [String(i), 1]));

const message = { role: 'user', content: 'a' };

/** [limit, its name in the error, a body that is just too large by default, a limit that takes it] */
const bounds: readonly (readonly [keyof HttpLimits, string | null, object, number, number])[] = [
  ['n', 'n', { n: 129 }, 129, 400],
  ['stop', 'stop', { stop: list(17) }, 17, 400],
  ['stopBytes', 'stop', { stop: 'a'.repeat(257) }, 257, 400],
  ['stopTokenIds', 'stop_token_ids', { stop_token_ids: list(1025).map(() => 1) }, 1025, 400],
  ['badWords', 'bad_words', { bad_words: list(129) }, 129, 400],
  ['badWordTokens', 'bad_words', { bad_words: ['a'.repeat(65)] }, 65, 400],
  ['cacheSaltBytes', 'cache_salt', { cache_salt: 'a'.repeat(257) }, 257, 400],
  ['messages', 'messages', { messages: Array(4097).fill(message) }, 4097, 400],
  ['decodeIds', 'tokens', { tokens: Array(1024 * 1024 + 1).fill(1) }, 1024 * 1024 + 1, 400],
  ['choices', 'prompt', { prompt: list(1025) }, 1025, 400],
  ['jsonDepth', null, { x: JSON.parse('['.repeat(64) + ']'.repeat(64)) as unknown }, 65, 400],
  ['bodyBytes', null, { x: 'a'.repeat(4 * 1024 * 1024) }, 5 * 1024 * 1024, 413],
];

for (const [limit, param, fields, raised, status] of bounds)
  t.test(`the limit ${limit} holds, and can be raised`, async (t) => {
    const path =
      'messages' in fields ? '/v1/chat/completions' : 'tokens' in fields ? '/detokenize' : null;
    const body = path === null ? { prompt: 'a', ...fields } : fields;
    const post = (server: TestServer) => server.post(path ?? '/v1/completions', body);
    const tight = await startServer(t);
    const refused = await post(tight);
    t.equal(refused.status, status);
    t.match(await refused.json(), { error: { param } });
    const wide = await startServer(t, {
      ...withLimits({ [limit]: raised }),
      maxModelLen: 2 ** 20,
    });
    t.equal((await post(wide)).status, 200);
  });

t.test('the limit badWordBytes holds, and can be raised', async (t) => {
  const body = { prompt: 'a', bad_words: ['a'.repeat(257)] };
  const tight = await startServer(t, withLimits({ badWordTokens: 257 }));
  t.match(await (await tight.post('/v1/completions', body)).json(), {
    error: { param: 'bad_words', message: /256 bytes/ },
  });
  const wide = await startServer(t, withLimits({ badWordTokens: 257, badWordBytes: 257 }));
  t.equal((await wide.post('/v1/completions', body)).status, 200);
});

t.test('headers beyond their number are not read', async (t) => {
  const many = Object.fromEntries(Array.from({ length: 120 }, (_, i) => [`x-${i}`, 'a']));
  const headers = { ...many, 'x-request-id': 'the-last-one' };
  const idOf = async (limits: Partial<HttpLimits>) => {
    const { url } = await startServer(t, withLimits(limits));
    return (await fetch(`${url}/health`, { headers })).headers.get('x-request-id');
  };
  t.not(await idOf({}), 'the-last-one');
  t.equal(await idOf({ headers: 200 }), 'the-last-one');
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
  t.match(client.text, /^HTTP\/1.1 431 .*--max-header-bytes/s);
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
  const server = await startServer(t, {
    ...withLimits({ requestsPerConnection: 2 }),
    timeouts: patient,
  });
  const client = await RawClient.open(server.port);
  client.post('/v1/completions', { prompt: 'a' });
  await client.until((text) => text.includes('Hello'));
  t.notMatch(client.text, /connection: close/i);
  client.post('/v1/completions', { prompt: 'a' });
  await client.closed();
  t.match(client.text, /connection: close/i);
  t.equal(client.text.split('Hello').length, 3, 'both were answered');
  const prober = await RawClient.open(server.port);
  for (const numAnswers of [1, 2]) {
    prober.socket.write('GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await prober.until((text) => text.split('HTTP/1.1 200').length > numAnswers);
  }
  await prober.closed();
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
  ...defaultHttpTimeouts,
  headersMs: never,
  requestMs: never,
  keepAliveMs: never,
};

t.test('headers that do not end cost the connection', async (t) => {
  // The request after it, which is healthy, has this long as well.
  const timeouts = { ...patient, headersMs: 2000 };
  const server = await startServer(t, { timeouts }, { checkMs: 20 });
  const silent = await RawClient.open(server.port);
  const slow = await RawClient.open(server.port);
  slow.socket.write('POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nx-slow: ');
  await slow.closed();
  t.match(slow.text, /^HTTP\/1.1 408 .*--request-timeout/s);
  await silent.closed();
  t.equal((await server.post('/v1/completions', { prompt: 'a' })).status, 200);
});

t.test('a body that does not end costs the connection', async (t) => {
  const timeouts = { ...patient, headersMs: 100, requestMs: 150 };
  const server = await startServer(t, { timeouts }, { checkMs: 20 });
  const slow = await RawClient.open(server.port);
  slow.socket.write(
    'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n' +
      'content-length: 100\r\n\r\n{"prompt"',
  );
  await slow.closed();
  t.equal(server.server.numOpen, 0);
});

t.test('an idle connection is closed', async (t) => {
  const server = await startServer(
    t,
    { timeouts: { ...patient, keepAliveMs: 100 } },
    { checkMs: 20 },
  );
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
