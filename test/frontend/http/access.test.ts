// Who may ask: keys, Host, origins; what headers come in and go out.
import { request as httpRequest } from 'node:http';
import t from 'tap';
import { startServer, type TestServer } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const good = { prompt: 'a' };

/** fetch does not let one choose Host and Origin. */
function get(
  { port }: TestServer,
  path: string,
  headers: Record<string, string>,
  method = 'GET',
): Promise<{ status: number; headers: Record<string, string | undefined>; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ host: '127.0.0.1', port, path, method, headers }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          headers: response.headers as Record<string, string | undefined>,
          body,
        }),
      );
    });
    sent.on('error', reject).end();
  });
}

t.test('with keys every route but the probes needs one', async (t) => {
  const server = await startServer(t, { apiKeys: ['first-key', 'second-key'] });
  const { url, post } = server;
  for (const authorization of ['', 'Bearer', 'Bearer wrong', 'Basic first-key', 'first-key']) {
    for (const path of ['/v1/models', '/metrics', '/version', '/load', '/memory', '/nothing']) {
      const response = await fetch(url + path, { headers: { authorization } });
      t.equal(response.status, 401, `${path} with "${authorization}"`);
      t.equal(response.headers.get('www-authenticate'), 'Bearer');
      t.match(await response.json(), {
        error: { type: 'AuthenticationError', param: null, code: 401 },
      });
    }
    const response = await post('/v1/completions', good, { authorization });
    t.equal(response.status, 401);
  }
  t.equal(server.client.submissions.length, 0);
  for (const key of ['first-key', 'second-key']) {
    const authorization = `Bearer ${key}`;
    t.equal((await post('/v1/completions', good, { authorization })).status, 200);
    t.equal((await post('/v1/completions', good, { authorization: `bearer ${key}` })).status, 200);
  }
  for (const path of ['/health', '/ping', '/health?x=1']) {
    t.equal((await fetch(url + path)).status, 200, `${path} is open`);
  }
  t.equal((await get(server, '/v1/models', {}, 'OPTIONS')).status, 204, 'OPTIONS is open');
});

t.test('an empty key is no key', async (t) => {
  const { url } = await startServer(t, { apiKeys: [''] });
  for (const authorization of ['', 'Bearer', 'Bearer ']) {
    const response = await fetch(`${url}/v1/models`, { headers: { authorization } });
    t.equal(response.status, 401);
  }
});

t.test('a loopback server refuses foreign Host headers', async (t) => {
  const server = await startServer(t);
  for (const host of ['localhost', 'localhost:8000', '127.0.0.1:1', '127.3.2.1', '[::1]:8000']) {
    t.equal((await get(server, '/v1/models', { host })).status, 200, host);
  }
  for (const host of [
    'evil.example',
    'localhost.evil.example',
    '10.0.0.1:80',
    '127.0.0.1.nip.io',
  ]) {
    const answer = await get(server, '/health', { host });
    t.equal(answer.status, 403, host);
    t.match(JSON.parse(answer.body), { error: { type: 'PermissionDeniedError', code: 403 } });
  }
  const open = await startServer(t, { loopbackOnly: false });
  t.equal((await get(open, '/v1/models', { host: 'models.example' })).status, 200);
});

t.test('origins', async (t) => {
  const loopback = await startServer(t);
  const ask = (server: TestServer, origin: string) => get(server, '/v1/models', { origin });
  for (const origin of ['http://localhost:5173', 'http://127.0.0.1', 'https://[::1]:1']) {
    const { headers } = await ask(loopback, origin);
    t.equal(headers['access-control-allow-origin'], origin);
    t.equal(headers.vary, 'Origin');
  }
  for (const origin of ['https://evil.example', 'http://localhost@evil.example', 'null']) {
    const { headers } = await ask(loopback, origin);
    t.equal(headers['access-control-allow-origin'], undefined, origin);
  }
  const named = await startServer(t, { allowedOrigins: ['https://app.example'] });
  const app = await ask(named, 'https://app.example');
  t.equal(app.headers['access-control-allow-origin'], 'https://app.example');
  const local = await ask(named, 'http://localhost');
  t.equal(local.headers['access-control-allow-origin'], undefined, 'only what is listed');
  const any = await startServer(t, { allowedOrigins: ['*'] });
  t.ok((await ask(any, 'https://any.example')).headers['access-control-allow-origin']);
});

t.test('preflight', async (t) => {
  const server = await startServer(t);
  const headers = {
    origin: 'http://localhost:3000',
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization,content-type,x-stainless-os',
  };
  const answer = await get(server, '/v1/chat/completions', headers, 'OPTIONS');
  t.equal(answer.status, 204);
  t.match(answer.headers, {
    'access-control-allow-origin': 'http://localhost:3000',
    'access-control-allow-methods': /POST/,
    'access-control-allow-headers': 'authorization,content-type,x-stainless-os',
  });
  const foreign = { ...headers, origin: 'https://evil.example' };
  t.equal((await get(server, '/v1/completions', foreign, 'OPTIONS')).status, 403);
});

t.test('X-Request-Id comes back, in the id as well; a bad one is replaced', async (t) => {
  const { post, url } = await startServer(t);
  const given = await post('/v1/completions', good, { 'x-request-id': 'trace-1.a:b_c' });
  t.equal(given.headers.get('x-request-id'), 'trace-1.a:b_c');
  t.match(await given.json(), { id: 'cmpl-trace-1.a:b_c' });
  for (const bad of ['with space', 'a'.repeat(129), 'é']) {
    const answer = await post('/v1/completions', good, { 'x-request-id': bad });
    t.match(answer.headers.get('x-request-id'), /^[0-9a-f]{32}$/);
  }
  t.match((await fetch(`${url}/nothing`)).headers.get('x-request-id'), /^[0-9a-f]{32}$/);
});

t.test('request_id in the body names the request where no header does', async (t) => {
  const { post } = await startServer(t);
  const named = await post('/v1/completions', { ...good, request_id: 'mine.1' });
  t.equal(named.headers.get('x-request-id'), 'mine.1');
  t.match(await named.json(), { id: 'cmpl-mine.1' });
  const messages = [{ role: 'user', content: 'a' }];
  const body = { messages, stream: true, request_id: 'mine.2' };
  const both = await post('/v1/chat/completions', body, { 'x-request-id': 'header' });
  t.equal(both.headers.get('x-request-id'), 'header');
  t.match(await both.text(), /"id":"chatcmpl-header"/);
  const replaced = await post(
    '/v1/completions',
    { ...good, request_id: 'mine.3' },
    { 'x-request-id': 'a b' },
  );
  t.match(await replaced.json(), { id: 'cmpl-mine.3' }, 'a bad header is no header');
});

t.test('fields without effect are named', async (t) => {
  const server = await startServer(t);
  const { post, backend } = server;
  const header = async (path: string, body: object) =>
    (await post(path, body)).headers.get('x-ignored-fields');
  t.equal(await header('/v1/completions', good), null);
  t.equal(await header('/v1/completions', { ...good, user: 'u', nothing: null }), null);
  t.equal(
    await header('/v1/completions', { ...good, foo: 1, 'bär,\r\n': 2 }),
    'foo, b%C3%A4r%2C%0D%0A',
  );
  const streamed = { ...good, stream: true, stream_options: { include_obfuscation: true }, x: 1 };
  t.equal(await header('/v1/completions', streamed), 'stream_options.include_obfuscation, x');
  const messages = [{ role: 'user', content: 'a', mood: 'good' }];
  t.equal(await header('/v1/chat/completions', { messages, store: true }), 'store, messages.mood');
  const named = { messages: [{ role: 'user', content: 'a', name: 'bob' }] };
  t.equal(await header('/v1/chat/completions', named), null);
  const text = { ...backend!.text, templateUses: () => false };
  server.backend = { ...backend!, text };
  t.equal(await header('/v1/chat/completions', named), 'messages.name');
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`field${i}`, 1]));
  t.equal((await header('/v1/completions', { ...good, ...many }))!.split(', ').length, 20);
  const long = { ...good, ['a'.repeat(1000)]: 1, ['b'.repeat(1000)]: 1 };
  t.equal((await header('/v1/completions', long))!.length, 1000);
});

t.test('strictApi refuses them', async (t) => {
  const { post } = await startServer(t, { strictApi: true });
  const refused = async (path: string, body: object, param: string) => {
    const response = await post(path, body);
    t.equal(response.status, 400);
    t.match(await response.json(), { error: { param, code: 400 } });
  };
  await refused('/v1/completions', { ...good, foo: 1 }, 'foo');
  const stream_options = { include_obfuscation: true };
  const streamed = { ...good, stream: true, stream_options };
  await refused('/v1/completions', streamed, 'stream_options.include_obfuscation');
  const messages = [{ role: 'user', content: 'a', mood: 'good' }];
  await refused('/v1/chat/completions', { messages }, 'messages.mood');
  t.equal((await post('/v1/completions', { ...good, user: 'u' })).status, 200);
});

t.test('a prefix that a proxy left on the path is taken off', async (t) => {
  const server = await startServer(t, { rootPath: '/llm/', apiKeys: ['k'] });
  const authorization = 'Bearer k';
  t.equal((await get(server, '/llm/v1/models', { authorization })).status, 200);
  t.equal((await get(server, '/v1/models', { authorization })).status, 200);
  t.equal((await get(server, '/llm/health', {})).status, 200);
  t.equal((await get(server, '/llmv1/models', { authorization })).status, 404);
});

t.test('what is no HTTP is answered and closed', async (t) => {
  const { port, url } = await startServer(t);
  const say = async (bytes: string) => {
    const raw = await RawClient.open(port);
    raw.socket.write(bytes);
    await raw.closed();
    return raw.text;
  };
  const large = `x: ${'a'.repeat(40_000)}\r\n`;
  const both = 'content-length: 4\r\ntransfer-encoding: chunked\r\n';
  const json = 'content-type: application/json\r\n';
  const chunked = `${json}transfer-encoding: chunked\r\n`;
  const bad: [string, number][] = [
    ['hello\r\n\r\n', 400],
    ['GET / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n', 400],
    [`GET / HTTP/1.1\r\nhost: localhost\r\n${large}\r\n`, 431],
    // No smuggling.
    [`POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n${both}\r\n0\r\n\r\n`, 400],
    [`POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n${chunked}\r\nzz\r\n`, 400],
    ['CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n', 405],
  ];
  for (const [bytes, status] of bad) {
    t.match(await say(bytes), new RegExp(`^HTTP/1\\.1 ${status} [^]*"code":${status}`), bytes);
    const kept = await RawClient.open(port);
    kept.post('/v1/completions', good);
    await kept.until((text) => text.includes('Hello'));
    kept.socket.write(bytes);
    await kept.closed();
    t.match(kept.text, new RegExp(`Hello[^]*HTTP/1\\.1 ${status} [^]*"code":${status}`), bytes);
  }
  t.equal((await fetch(`${url}/health`)).status, 200);
});

t.test('what is no HTTP does not answer for others on its connection', async (t) => {
  const { client, port } = await startServer(t);
  client.script = () => undefined;
  const junk = 'hello\r\n\r\n';
  const waiting = await RawClient.open(port);
  waiting.post('/v1/completions', good);
  const before = await client.nextSubmission();
  waiting.socket.write(junk);
  await waiting.closed();
  await before.untilAborted();
  t.equal(waiting.text, '', 'a client that waits could take it for its answer');
  const streaming = await RawClient.open(port);
  streaming.post('/v1/completions', { ...good, stream: true });
  (await client.nextSubmission()).say('Hel');
  await streaming.until((text) => text.includes('Hel'));
  streaming.socket.write(junk);
  await streaming.closed();
  t.notMatch(streaming.text, /malformed/);
});

t.test('every error has the one shape', async (t) => {
  const { port } = await startServer(t, { apiKeys: ['k'] });
  const asks: [string, number][] = [
    ['GET /health HTTP/1.1\r\n', 400],
    ['GET /health HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n', 400],
    ['GET /v1/models/%zz HTTP/1.1\r\nhost: localhost\r\n', 400],
    ['GET /v1/models HTTP/1.1\r\nhost: localhost\r\nexpect: miracles\r\n', 401],
  ];
  for (const [head, status] of asks) {
    const raw = await RawClient.open(port);
    raw.socket.write(`${head}\r\n`);
    const text = await raw.until((said) => said.endsWith('}'));
    t.match(text, new RegExp(`^HTTP/1\\.1 ${status} [^]*x-request-id: [0-9a-f]{32}`), head);
    const { error } = JSON.parse(text.split('\r\n\r\n')[1]!) as { error: object };
    t.strictSame(Object.keys(error), ['message', 'type', 'param', 'code'], head);
    raw.leave();
  }
  const old = await RawClient.open(port);
  old.socket.write('GET /health HTTP/1.0\r\n\r\n');
  await old.closed();
  t.match(old.text, /^HTTP\/1\.1 200 /, 'HTTP/1.0 has no Host');
});
