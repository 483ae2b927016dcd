// Flags of limits reach every process that keeps the limit: the frontend, the engine behind it, and
// the detokenizer, whom strangers ask.
import { connect, type Socket } from 'node:net';
import t from 'tap';
import { get, post } from './client.ts';
import { runCommand, serveCommand, startServer } from './server.ts';

t.test('a raised limit is raised in every process, and a lowered one lowered', async (t) => {
  const server = await startServer(t, ['--max-stop-token-ids', '1100', '--max-messages', '1']);
  const send = (path: string, body: object) =>
    fetch(server.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  const message = { role: 'user', content: 'Hello' };
  const complete = (numIds: number) =>
    send('/v1/completions', {
      prompt: 'Hello',
      max_tokens: 1,
      stop_token_ids: Array.from({ length: numIds }, (_, id) => id % 100),
    });
  t.equal((await complete(1100)).status, 200);
  t.equal((await complete(1101)).status, 400);
  const chat = (numMessages: number) =>
    send('/v1/chat/completions', { messages: Array(numMessages).fill(message), max_tokens: 1 });
  t.equal((await chat(1)).status, 200);
  t.equal((await chat(2)).status, 400);
});

for (const asked of ['auto', '-1'])
  t.test(`--max-model-len ${asked}: as long as the KV cache allows`, async (t) => {
    const memory = ['--kv-cache-memory-bytes', '4M'];
    const server = await startServer(t, ['--max-model-len', asked, ...memory]);
    const length = Number(server.ready['kv_capacity_tokens']);
    t.ok(length > 0 && length < 2048, `${length} tokens, less than the model's`);
    const { body } = await get(server, '/v1/models');
    t.match(body, { data: [{ max_model_len: length }] });
    const prompt = Array<number>(length - 4).fill(100);
    const complete = (maxTokens: number) =>
      post(server, '/v1/completions', { prompt, max_tokens: maxTokens, ignore_eos: true });
    t.match(await complete(4), { status: 200, body: { usage: { total_tokens: length } } });
    t.match(await complete(5), {
      status: 400,
      body: { error: { message: new RegExp(`maximum context length is ${length} tokens`) } },
    });
    t.match(server.stderr, new RegExp(`requests have up to ${length} tokens`));
  });

t.test('--max-model-len auto is the model’s where there is room', async (t) => {
  const server = await startServer(t, ['--max-model-len', 'auto']);
  t.match((await get(server, '/v1/models')).body, { data: [{ max_model_len: 2048 }] });
});

t.test('no bound on connections is the bound on files', async (t) => {
  const shell = ['sh', '-c', 'ulimit -n 160 && exec "$0" "$@"'];
  const server = runCommand(t, [...shell, ...serveCommand, '--port', '0', '--max-connections=0']);
  await server.waitReady();
  t.match(server.stderr, /allows 160 open files: 32 connections are taken, not any number/);
});

t.test('a connection for which no file is left is refused with words', async (t) => {
  const shell = ['sh', '-c', 'ulimit -n 160 && exec "$0" "$@"'];
  const server = runCommand(t, [...shell, ...serveCommand, '--port', '0']);
  await server.waitReady();
  t.match(server.stderr, /allows 160 open files: 32 connections are taken, not --max-connections/);
  const port = Number(new URL(server.url).port);
  const sockets: Socket[] = [];
  t.teardown(() => sockets.forEach((socket) => socket.destroy()));
  const answers = Array.from({ length: 200 }, () => {
    const socket = connect({ host: '127.0.0.1', port });
    sockets.push(socket);
    socket.write('GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n');
    return new Promise<string>((resolve, reject) => {
      socket.once('data', (data) => resolve(data.toString()));
      socket.once('error', reject).once('end', () => reject(new Error('closed without a word')));
    });
  });
  const statuses = (await Promise.all(answers)).map((answer) => answer.split(' ')[1]);
  t.equal(statuses.filter((status) => status === '200').length, 32);
  t.equal(statuses.filter((status) => status === '503').length, 168);
});
