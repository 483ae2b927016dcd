// Models, tokenize, health, version, load, memory, timeline, metrics, and the server's life.
import t from 'tap';
import { RequestError } from '../../../common/errors.ts';
import { packageVersion } from '../../../common/package-root.ts';
import { idleStatus } from '../../fixtures/idle-status.ts';
import { startServer, type TestServer } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const json = async (response: Response) => await response.json();

t.test('models', async (t) => {
  const { url } = await startServer(t);
  const card = { object: 'model', owned_by: 'vllm-ts', created: Number, max_model_len: 512 };
  const text = await (await fetch(`${url}/v1/models`)).text();
  t.match(JSON.parse(text), {
    object: 'list',
    data: [
      { id: 'test-model', ...card },
      { id: 'alias/of-it', ...card },
    ],
  });
  t.notMatch(text, /secret-path/, 'no path of the machine');
  for (const id of ['test-model', 'alias/of-it', 'alias%2Fof-it']) {
    const one = await json(await fetch(`${url}/v1/models/${id}`));
    t.match(one, { id: decodeURIComponent(id), ...card });
  }
  const missing = await fetch(`${url}/v1/models/other`);
  t.equal(missing.status, 404);
  t.match(await json(missing), {
    error: { message: /test-model, alias\/of-it/, type: 'NotFoundError', param: 'model' },
  });
});

t.test('a slash at the end is sent on to the route without it', async (t) => {
  const { url } = await startServer(t, { rootPath: '/llm' });
  const ask = (method: string, path: string) => fetch(url + path, { method, redirect: 'manual' });
  for (const [method, path, location] of [
    ['GET', '/v1/models/', '/llm/v1/models'],
    ['POST', '/v1/completions/?a=b?', '/llm/v1/completions?a=b?'],
    ['POST', '/llm/v1/completions/', '/llm/v1/completions'],
    ['GET', '/v1/completions/', '/llm/v1/completions'],
  ] as const) {
    const response = await ask(method, path);
    t.equal(response.status, 307, path);
    t.equal(response.headers.get('location'), location);
  }
  for (const path of ['/', '/v1/', '//v1/models/', '/v1/completions//', '//evil.example/'])
    t.equal((await ask('POST', path)).status, 404, path);
  t.equal((await ask('POST', '/v1/models/x/')).status, 405);
  const body = JSON.stringify({ prompt: 'a' });
  const headers = { 'content-type': 'application/json' };
  const followed = await fetch(`${url}/v1/completions/`, { method: 'POST', body, headers });
  t.match(await json(followed), { object: 'text_completion' });
});

t.test('tokenize and detokenize', async (t) => {
  const { post } = await startServer(t);
  t.same(await json(await post('/tokenize', { prompt: 'ab' })), {
    count: 3,
    max_model_len: 512,
    tokens: [256, 97, 98],
    token_strs: null,
  });
  t.match(await json(await post('/tokenize', { prompt: 'ab', add_special_tokens: false })), {
    tokens: [97, 98],
  });
  t.match(await json(await post('/tokenize', { prompt: 'a', return_token_strs: true })), {
    tokens: [256, 97],
    token_strs: ['<256>', '<97>'],
  });
  const messages = [{ role: 'user', content: 'hi' }];
  t.match(await json(await post('/tokenize', { messages })), { count: 19 });
  const both = { messages, add_generation_prompt: true, continue_final_message: true };
  for (const path of ['/tokenize', '/v1/chat/completions'])
    t.match(await json(await post(path, both)), {
      error: { param: 'continue_final_message', code: 400 },
    });
  t.match(await json(await post('/tokenize', { messages, add_generation_prompt: false })), {
    count: 9,
  });
  t.same(await json(await post('/detokenize', { tokens: [256, 97, 98] })), { prompt: '<s>ab' });
  t.same(await json(await post('/detokenize', { tokens: [] })), { prompt: '' });
});

t.test('version, load, memory', async (t) => {
  const { url, client, port } = await startServer(t);
  t.same(await json(await fetch(`${url}/version`)), { version: packageVersion });
  t.same(await json(await fetch(`${url}/load`)), { server_load: 0 });
  t.same(await json(await fetch(`${url}/memory`)), { method: 'memory' });
  t.equal((await fetch(`${url}/debug/timeline`)).status, 404, 'behind a flag');
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.post('/v1/completions', { prompt: 'a' });
  await submitted;
  t.same(await json(await fetch(`${url}/load`)), { server_load: 1 });
  raw.leave();
});

t.test('debug timeline', async (t) => {
  const { url } = await startServer(t, { enableDebugTimeline: true });
  t.same(await json(await fetch(`${url}/debug/timeline`)), { method: 'timeline' });
});

t.test('before the engine is ready', async (t) => {
  const server = await startServer(t);
  server.backend = null;
  const paths = ['/v1/completions', '/v1/chat/completions', '/tokenize', '/detokenize'];
  const answers = [
    ...(await Promise.all(paths.map((path) => server.post(path, { prompt: 'a' })))),
    ...(await Promise.all(['/health', '/ping', '/memory'].map((path) => fetch(server.url + path)))),
  ];
  for (const response of answers) {
    t.equal(response.status, 503, response.url);
    t.equal(response.headers.get('retry-after'), '1');
    t.match(await json(response), { error: { type: 'ServiceUnavailableError', code: 503 } });
  }
  for (const path of ['/v1/models', '/version', '/metrics', '/load']) {
    t.equal((await fetch(server.url + path)).status, 200, path);
  }
});

t.test('health', async (t) => {
  const server = await startServer(t);
  const { client, url } = server;
  const statuses = async () => [
    (await fetch(`${url}/health`)).status,
    (await fetch(`${url}/ping`)).status,
    (await fetch(`${url}/ping`, { method: 'POST' })).status,
  ];
  t.same(await statuses(), [200, 200, 200]);
  client.stalledMs = 4999;
  t.same(await statuses(), [200, 200, 200]);
  client.stalledMs = 5000;
  t.same(await statuses(), [503, 503, 503]);
  client.stalledMs = 0;
  client.lost = true;
  t.same(await statuses(), [503, 503, 503]);
  client.lost = false;
  t.same(await statuses(), [200, 200, 200]);
  t.equal(client.submissions.length, 0, 'a probe never asks the engine');
});

t.test('drain: readiness first, open requests go on, new ones are refused', async (t) => {
  const { client, url, server, post, port } = await startServer(t);
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.post('/v1/completions', { prompt: 'a', stream: true });
  const submission = await submitted;
  submission.say('before ');
  server.drain();
  const health = await fetch(`${url}/health`);
  t.equal(health.status, 503);
  t.equal(health.headers.get('connection'), 'close');
  const refused = await post('/v1/completions', { prompt: 'a' });
  t.equal(refused.status, 503);
  t.equal(refused.headers.get('retry-after'), '1');
  let idle = false;
  const whenIdle = server.idle().then(() => (idle = true));
  submission.say('after', { finishReason: 'stop' });
  const text = await raw.until((received) => received.includes('[DONE]'));
  t.match(text, /before .*after/s);
  await whenIdle;
  t.equal(idle, true);
  t.equal(server.numOpen, 0);
});

t.test('close ends what is open with an error', async (t) => {
  const { client, server, post, port } = await startServer(t);
  client.script = () => undefined;
  const [first, second] = [client.nextSubmission(), client.nextSubmission()];
  const raw = await RawClient.open(port);
  raw.post('/v1/completions', { prompt: 'a', stream: true });
  const streamed = await first;
  streamed.say('some');
  await raw.until((text) => text.includes('some'));
  const whole = post('/v1/completions', { prompt: 'a' });
  await second;
  await server.close();
  t.equal((await whole).status, 503);
  await raw.closed();
  t.match(raw.text, /data: \{"error":\{"message":"the server is shutting down"/);
  t.notMatch(raw.text, /\[DONE\]/);
  t.equal(streamed.aborted, true);
});

t.test('a request that still comes while the server closes is refused in our words', async (t) => {
  const { server, port } = await startServer(t);
  const raw = await RawClient.open(port);
  raw.socket.write('POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n');
  const other = await RawClient.open(port);
  other.post('/v1/completions', { prompt: 'a' });
  await other.until((text) => text.includes('200 OK'));
  const closed = server.close();
  // From when no connection is taken any more, fastify has answers of its own.
  for (let refused = false; !refused;)
    await RawClient.open(port).then(
      (late) => late.leave(),
      () => (refused = true),
    );
  raw.socket.write('content-type: application/json\r\ncontent-length: 14\r\n\r\n{"prompt":"a"}');
  await closed;
  await raw.closed();
  t.match(raw.text, /retry-after: 1\r\n/);
  t.match(raw.text, /\{"error":\{"message":"the server is shutting down"/);
});

t.test('metrics', async (t) => {
  const server = await startServer(t);
  const { client, post } = server;
  const before = await scrape(server);
  const labels = 'model_name="test-model",engine="0"';
  const success = (reason: string) =>
    `vllm:request_success_total{${labels},finished_reason="${reason}"}`;
  for (const reason of ['stop', 'length', 'repetition', 'abort', 'error'])
    t.equal(before.get(success(reason)), 0, `${reason} is there from the start`);
  t.equal(before.get(`vllm:request_params_n_bucket{${labels},le="1"}`), 0, 'and so are buckets');
  t.equal(before.get(`vllm:e2e_request_latency_seconds_count{${labels}}`), 0);
  client.status = {
    ...idleStatus,
    numRunning: 3,
    numWaiting: 2,
    kvCacheUsage: 0.25,
    numPreemptions: 4,
    promptTokens: 100,
    generationTokens: 50,
    prefixCacheQueries: 80,
    prefixCacheHits: 16,
    deviceBusyMs: 1500,
    deviceIdleMs: 250,
    cachedPromptTokens: 30,
    numInvalidLogits: 1,
    histograms: {
      queueTime: { bounds: [0.3, 1.5], counts: [3, 0, 1], sum: 7.25 },
      iterationTokens: { bounds: [1, 8], counts: [5, 2, 0], sum: 19 },
    },
  };
  const body = { prompt: 'ab', stream: true };
  const two = { prompt: 'ab', n: 2 };
  const failing = { prompt: 'ab' };
  const sent = [body, two, failing, failing].reduce(
    (sum, it) => sum + JSON.stringify(it).length,
    0,
  );
  await (await post('/v1/completions', body)).text();
  const whole = await (await post('/v1/completions', two)).text();
  client.script = (submission) => submission.fail(new RequestError('invalid_logits', 'NaN'));
  const failed = await (await post('/v1/completions', failing)).text();
  client.refusal = () => new RequestError('queue_full', 'the queue is full');
  const refused = await (await post('/v1/completions', failing)).text();
  await fetch(`${server.url}/health`);
  await server.server.idle();
  const after = await scrape(server);
  const expected: Readonly<Record<string, number>> = {
    [`vllm:num_requests_running{${labels}}`]: 3,
    [`vllm:num_requests_waiting{${labels}}`]: 2,
    [`vllm:kv_cache_usage_perc{${labels}}`]: 0.25,
    [`vllm:num_preemptions_total{${labels}}`]: 4,
    [`vllm:prompt_tokens_total{${labels}}`]: 100,
    [`vllm:generation_tokens_total{${labels}}`]: 50,
    [`vllm:prefix_cache_queries_total{${labels}}`]: 80,
    [`vllm:prefix_cache_hits_total{${labels}}`]: 16,
    [success('stop')]: 3,
    [success('error')]: 1,
    [success('length')]: 0,
    [success('abort')]: 0,
    [`vllm:prompt_tokens_cached_total{${labels}}`]: 30,
    [`vllm:prompt_tokens_by_source_total{${labels},source="local_compute"}`]: 70,
    [`vllm:prompt_tokens_by_source_total{${labels},source="local_cache_hit"}`]: 30,
    [`vllm:num_requests_waiting_by_reason{${labels},reason="capacity"}`]: 2,
    [`vllm:corrupted_requests_total{${labels}}`]: 1,
    [`vllm:request_queue_time_seconds_bucket{${labels},le="0.3"}`]: 3,
    [`vllm:request_queue_time_seconds_bucket{${labels},le="1.5"}`]: 3,
    [`vllm:request_queue_time_seconds_bucket{${labels},le="+Inf"}`]: 4,
    [`vllm:request_queue_time_seconds_count{${labels}}`]: 4,
    [`vllm:request_queue_time_seconds_sum{${labels}}`]: 7.25,
    [`vllm:iteration_tokens_total_count{${labels}}`]: 7,
    [`vllm:e2e_request_latency_seconds_count{${labels}}`]: 3,
    [`vllm:request_max_num_generation_tokens_sum{${labels}}`]: 10,
    [`vllm:request_max_num_generation_tokens_count{${labels}}`]: 2,
    [`vllm:request_prefill_kv_computed_tokens_sum{${labels}}`]: 9,
    [`vllm:request_prompt_tokens_sum{${labels}}`]: 9,
    [`vllm:request_generation_tokens_sum{${labels}}`]: 15,
    [`vllm:request_params_n_sum{${labels}}`]: 4,
    [`vllm:request_params_max_tokens_sum{${labels}}`]: 48,
    'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="100",cache_dtype="auto"}': 1,
    'vllm:device_info{engine="0",device="cpu (avx2, 2 threads)"}': 1,
    'http_requests_total{method="POST",status="2xx",handler="/v1/completions"}': 2,
    'http_requests_total{method="POST",status="5xx",handler="/v1/completions"}': 1,
    'http_requests_total{method="POST",status="4xx",handler="/v1/completions"}': 1,
    'http_request_size_bytes_sum{handler="/v1/completions"}': sent,
    'http_request_size_bytes_count{handler="/v1/completions"}': 4,
    'http_response_size_bytes_sum{handler="/v1/completions"}':
      whole.length + failed.length + refused.length,
    http_request_duration_highr_seconds_count: 4,
  };
  for (const [name, value] of Object.entries(expected)) t.equal(after.get(name), value, name);
  t.notOk(
    [...after.keys()].some((key) => key.includes('"/health"')),
    'probes do not count',
  );
  const buckets = (name: string) =>
    [...after.keys()]
      .filter((key) => key.startsWith(`vllm:${name}_bucket{`))
      .map((key) => /le="([^"]*)"/.exec(key)![1]);
  t.equal(buckets('e2e_request_latency_seconds').join(' '), latency);
  t.equal(buckets('request_prompt_tokens').join(' '), '1 2 5 10 20 50 100 200 500 +Inf');
});

const latency = '0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680 +Inf';

/** Every sample, by its name and labels as they are written. */
async function scrape({ url }: TestServer): Promise<Map<string, number>> {
  const response = await fetch(`${url}/metrics`);
  const lines = (await response.text()).split('\n').filter((line) => /^[^#]/.test(line));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      // The client library puts `le` first; the order of labels means nothing.
      return [
        line.slice(0, at).replace(/\{le="([^"]*)",([^}]*)\}/, '{$2,le="$1"}'),
        Number(line.slice(at)),
      ];
    }),
  );
}
