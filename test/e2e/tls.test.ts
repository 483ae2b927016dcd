// --ssl-keyfile and --ssl-certfile through the whole server.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { limitMs, runServer, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
const skip = hasOpenssl ? false : 'openssl, which makes the key, is not here';

function makeKey(t: Test): { key: string; cert: string } {
  const folder = mkdtempSync(join(tmpdir(), 'vt-tls-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const made = spawnSync('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
    ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
    ...['-keyout', key, '-out', cert],
  ]);
  if (made.status !== 0) throw new Error(made.stderr.toString());
  return { key, cert };
}

t.test('a stream over TLS, from a client that checks the certificate', { skip }, async (t) => {
  const { key, cert } = makeKey(t);
  const server = await startServer(t, ['--ssl-keyfile', key, '--ssl-certfile', cert]);
  t.match(server.url, /^https:\/\/127\.0\.0\.1:\d+$/);
  t.match(server.stdout, /try: curl -N https:/);
  const sent = request(`${server.url}/v1/completions`, {
    method: 'POST',
    ca: readFileSync(cert),
    headers: { 'content-type': 'application/json' },
  });
  sent.end(JSON.stringify({ prompt: 'Once', max_tokens: 8, stream: true }));
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  t.equal(response.statusCode, 200);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  t.match(text, /^data: \{.*\n\ndata: \[DONE\]\n\n$/s);

  // Who does not speak TLS is told so where it is HTTP, and nobody else is harmed.
  const port = Number(new URL(server.url).port);
  const say = async (words: string) => {
    const plain = connect(port, '127.0.0.1').on('error', () => undefined);
    plain.write(words);
    let heard = '';
    plain.setEncoding('utf8').on('data', (chunk: string) => (heard += chunk));
    await once(plain, 'close');
    return heard;
  };
  const told = await say('GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n');
  t.match(told, /^HTTP\/1\.1 400 .*"this port speaks HTTPS"/s);
  t.notMatch(await say('nothing that anybody speaks\r\n\r\n'), /HTTP/);
  const health = request(`${server.url}/health`, { ca: readFileSync(cert) });
  health.end();
  const [answer] = (await once(health, 'response')) as [IncomingMessage];
  t.equal(answer.resume().statusCode, 200);
  server.kill('SIGTERM');
  t.same(await server.exited, { code: 0, signal: null });
});

t.test("a key that is none, or not the certificate's, is named", { skip }, async (t) => {
  const { key, cert } = makeKey(t);
  const { key: other } = makeKey(t);
  const broken = join(key, '..', 'broken.pem');
  writeFileSync(broken, 'no key');
  for (const wrong of [broken, other]) {
    const server = runServer(t, ['--port', '0', '--ssl-keyfile', wrong, '--ssl-certfile', cert]);
    t.same(await server.exited, { code: 64, signal: null });
    t.match(server.stderr, /^vllm-ts: --ssl-keyfile and --ssl-certfile: .+\n$/);
    t.equal(server.stdout, '');
  }
});
