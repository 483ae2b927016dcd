// How the server listens and what it logs.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { request as httpsRequest } from 'node:https';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import t from 'tap';
import { fakeText, startServer } from './fakes.ts';

t.test('it serves on a socket that it inherits', async (t) => {
  const bound = createServer();
  await new Promise<void>((resolve) => bound.listen(0, '127.0.0.1', resolve));
  const { port } = bound.address() as AddressInfo;
  const { fd } = (bound as Server & { _handle: { fd: number } })._handle;
  const program = fileURLToPath(new URL('fd-server.js', import.meta.url));
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit', fd] });
  const exit = once(child, 'exit');
  const [said] = (await once(child.stdout!, 'data')) as [Buffer];
  t.equal(said.toString(), `${port}\n`);
  // Or else some connections would be ours.
  bound.close();
  t.equal((await fetch(`http://127.0.0.1:${port}/version`)).status, 200);
  t.equal((await fetch(`http://127.0.0.1:${port}/health`)).status, 503);
  child.stdin!.end();
  t.equal((await exit)[0], 0);
});

t.test('request logs have neither prompts nor outputs nor keys', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => lines.push(line) });
  const apiKeys = ['the-api-key'];
  const server = await startServer(t, { enableLogRequests: true, apiKeys }, { log });
  const headers = { authorization: 'Bearer the-api-key', 'x-request-id': 'traced' };
  const prompt = 'the-secret-prompt';
  for (const stream of [false, true]) {
    const body = { prompt, stream, bad_words: ['the-bad-word'], n: 2 };
    await (await server.post('/v1/completions', body, headers)).text();
  }
  await server.post('/v1/completions', { prompt, temperature: 9 }, headers);
  t.equal(lines.length, 4, 'two lines a request that was taken');
  t.match(JSON.parse(lines[0]!), { id: 'traced', numPromptTokens: [18], n: 2, stream: false });
  t.match(JSON.parse(lines[1]!), { id: 'traced', reason: 'stop', ms: Number });
  t.notMatch(lines.join(''), /the-secret-prompt|the-api-key|the-bad-word|Hello/);
});

t.test('what is unforeseen says nothing to the client, and all to the log', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'error' }, { write: (line) => lines.push(line) });
  const server = await startServer(t, {}, { log });
  server.backend = {
    client: server.client,
    text: {
      ...fakeText,
      encode: () => Promise.reject(new Error('ENOENT /home/somebody/secret')),
    },
  };
  const response = await server.post('/v1/completions', { prompt: 'a' });
  t.equal(response.status, 500);
  t.same(await response.json(), {
    error: { message: 'internal error', type: 'InternalServerError', param: null, code: 500 },
  });
  t.match(lines.join(''), /ENOENT/);
  t.equal(server.server.numOpen, 0);
});

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

t.test(
  'TLS',
  { skip: hasOpenssl ? false : 'openssl, which makes the key, is not here' },
  async (t) => {
    const folder = t.testdir();
    const tls = { keyPath: join(folder, 'key.pem'), certPath: join(folder, 'cert.pem') };
    const made = spawnSync('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', '/CN=localhost', '-keyout', tls.keyPath, '-out', tls.certPath],
    ]);
    t.equal(made.status, 0, made.stderr.toString());
    const { port } = await startServer(t, { tls });
    const status = await new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port, path: '/health', rejectUnauthorized: false };
      httpsRequest(options, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on('error', reject)
        .end();
    });
    t.equal(status, 200);
  },
);
