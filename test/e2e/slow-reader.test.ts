// Readers that stop reading: they end with slow_reader, in bounded memory, and nobody waits for them.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { defaultSamplingParams, defaultTextParams } from '../../common/sampling-params.ts';
import { EngineClient } from '../../frontend/engine-client.ts';
import type { RequestOutput } from '../../frontend/engine-client-types.ts';
import { CompletionStream, metric, metricBecomes, post } from './client.ts';
import { limitMs, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

const other = { prompt: 'Once upon a time', max_tokens: 64, temperature: 0, ignore_eos: true };

t.test('a foreign frontend that grants nothing back loses that request alone', async (t) => {
  const folder = join(mkdtempSync(join(tmpdir(), 'vt-')), 'run');
  t.teardown(() => rmSync(join(folder, '..'), { recursive: true }));
  const server = await startServer(t, ['--frontend-address', folder]);
  const client = await EngineClient.connect(folder);
  t.teardown(() => client.close());
  const promptTokenIds = await client.tokenize('Once upon a time');
  const sampling = { ...defaultSamplingParams, maxTokens: null, ignoreEos: true };
  const base = { promptTokenIds, n: 1, priority: 0, cacheSalt: null };
  let end!: (output: RequestOutput) => void;
  const ended = new Promise<RequestOutput>((resolve) => (end = resolve));
  // Ids and their logprobs: no text, which is not what fills the account.
  const text = { ...defaultTextParams, detokenize: false, creditBytes: 1024 };
  await client.submit({ ...base, sampling: { ...sampling, logprobs: 20 }, text }, (output) => {
    if (output.finishReason !== 'none') end(output);
  });
  const stream = await CompletionStream.open(server, other);
  const outputs: string[] = [];
  const read = { ...base, sampling: { ...sampling, maxTokens: 64 }, text: defaultTextParams };
  for await (const { finishReason } of client.generate(read)) outputs.push(finishReason);
  t.equal(outputs.at(-1), 'length', 'its other request goes on');
  await stream.ended;
  t.ok(stream.isDone, 'and so do others');
  t.match(await ended, { finishReason: 'error', error: { code: 'slow_reader' } });
  t.equal(await metricBecomes(server, 'num_requests_running', 0), 0);
});

t.test('an HTTP client that reads nothing loses its connection', async (t) => {
  const server = await startServer(t, ['--reader-timeout', '5']);
  const frontend = await server.child('frontend 0');
  const before = rssBytes(frontend);
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
  socket.pause().on('error', () => undefined);
  const body = JSON.stringify({
    ...other,
    temperature: 1,
    max_tokens: 1900,
    n: 8,
    logprobs: 20,
    stream: true,
  });
  socket.write(
    'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n' +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  t.equal(await metricBecomes(server, 'num_requests_running', 8), 8);
  // The frontend gives the connection up or the detokenizer the request, whoever is first.
  const ended = (reason: string) =>
    metric(
      server,
      `request_success_total{model_name="vllm-ts-demo",engine="0",finished_reason="${reason}"}`,
    );
  while ((await ended('error')) + (await ended('abort')) === 0) {
    const { status } = await post(server, '/v1/completions', { prompt: 'Once', max_tokens: 8 });
    t.equal(status, 200, 'others are served meanwhile');
  }
  t.equal(await metricBecomes(server, 'num_requests_running', 0), 0);
  t.ok(rssBytes(frontend) - before < 256 * 1024 * 1024, 'and nothing has piled up');
  socket.destroy();
});

function rssBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) * 1024;
}
