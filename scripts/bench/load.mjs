// A closed loop of streaming clients against POST /v1/completions of any OpenAI-compatible server:
// each sends its next request when its last one ended. Knows nothing of who serves.
import http from 'node:http';
import https from 'node:https';
import { performance } from 'node:perf_hooks';

/**
 * Sends every one of `bodies`, `concurrency` at a time. Resolves to { ms, results }: the time from
 * the first request to the last answer, and what `stream` says of each.
 */
export async function runLoad({ url, headers = {}, concurrency, bodies }) {
  const target = new URL(`${url.replace(/\/+$/, '').replace(/\/v1$/, '')}/v1/completions`);
  const protocol = target.protocol === 'https:' ? https : http;
  // A connection for each request: some servers close theirs after a stream.
  const agent = new protocol.Agent({ keepAlive: false, noDelay: true });
  const results = [];
  const pending = [...bodies];
  const client = async () => {
    for (let body = pending.shift(); body; body = pending.shift())
      results.push(await stream({ protocol, target, agent, headers, body }));
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: concurrency }, client));
  const ms = performance.now() - start;
  agent.destroy();
  return { ms, results };
}

/**
 * One streamed completion: { error, sentMs, firstMs, lastMs, promptTokens, outputTokens }. Times are
 * performance.now(); tokens as the server counts them in `usage`, else one for each chunk.
 */
function stream({ protocol, target, agent, headers, body }) {
  return new Promise((resolve) => {
    const data = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
    const result = {
      error: null,
      sentMs: performance.now(),
      firstMs: 0,
      lastMs: 0,
      promptTokens: 0,
      outputTokens: 0,
    };
    let chunks = 0;
    let usage = null;
    let isDone = false;
    let tail = '';
    const end = (error) => {
      result.error ??= error ?? (isDone ? null : 'the stream ended without [DONE]');
      result.outputTokens = usage?.completion_tokens ?? chunks;
      result.promptTokens = usage?.prompt_tokens ?? 0;
      resolve(result);
    };
    const request = protocol.request(
      target,
      {
        method: 'POST',
        agent,
        headers: {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(data),
          ...headers,
        },
      },
      (response) => {
        response.setEncoding('utf8');
        response.on('data', (text) => {
          if (response.statusCode !== 200) {
            tail += text;
            return;
          }
          const lines = (tail + text).split('\n');
          tail = lines.pop();
          for (const line of lines) readLine(line);
        });
        response.on('end', () =>
          end(response.statusCode === 200 ? null : `HTTP ${response.statusCode}: ${tail}`),
        );
        response.on('error', (error) => end(error.message));
      },
    );
    request.on('error', (error) => end(error.message));
    request.end(data);

    // Chunks are not parsed one by one: the client must not take the time of a server beside it.
    function readLine(line) {
      if (!line.startsWith('data:')) return;
      if (line.includes('[DONE]')) isDone = true;
      else if (line.includes('"error"')) result.error ??= line;
      else {
        if (line.includes('"usage":{') || line.includes('"usage": {'))
          usage = JSON.parse(line.slice(5)).usage;
        if (/"choices": ?\[\]/.test(line)) return;
        result.lastMs = performance.now();
        if (chunks++ === 0) result.firstMs = result.lastMs;
      }
    }
  });
}
