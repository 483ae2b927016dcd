// What an HTTP client of the tests does: one request, or one stream read to its end.
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import type { Test } from 'tap';
import type { Server } from './server.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: unknown;
}

export async function get(server: Server, path: string): Promise<Answer> {
  return await answerOf(await ask(server, path));
}

export async function post(server: Server, path: string, body: object): Promise<Answer> {
  const response = await ask(server, path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return await answerOf(response);
}

/** fetch, whose error says why, and what the server had to say about it. */
async function ask(server: Server, path: string, init?: RequestInit): Promise<Response> {
  try {
    return await fetch(server.url + path, init);
  } catch (error) {
    const { cause } = error as Error;
    throw new Error(`${path}: ${String(cause ?? error)}\n${server.stderr}`, { cause: error });
  }
}

async function answerOf(response: Response): Promise<Answer> {
  const text = await response.text();
  let body: unknown = text;
  if (response.headers.get('content-type')?.includes('json') === true) body = JSON.parse(text);
  return { status: response.status, headers: response.headers, body };
}

/** Asks again until the server has mended itself; in between only 503 and broken connections. */
export async function servesAgain(t: Test, server: Server, body: object): Promise<void> {
  let status = 0;
  for (let i = 0; status !== 200 && i < 1800; i++) {
    status = await post(server, '/v1/completions', body).then(
      (answer) => answer.status,
      () => 0,
    );
    if (![0, 200, 500, 503].includes(status)) break;
    if (status !== 200) await new Promise((resolve) => setTimeout(resolve, 100));
  }
  t.equal(status, 200, 'the next request is served');
}

/** Value of a sample of /metrics, by its name without "vllm:" and, where it matters, its labels. */
export async function metric(server: Server, name: string): Promise<number> {
  const { body } = await get(server, '/metrics');
  const line = String(body)
    .split('\n')
    .find((text) => text.startsWith(`vllm:${name}{`) || text.startsWith(`vllm:${name} `));
  return Number(line?.slice(line.lastIndexOf(' ')));
}

/** Asks until it has the value, for a while; returns what it has then. */
export async function metricBecomes(server: Server, name: string, wanted: number): Promise<number> {
  let value = NaN;
  for (let i = 0; value !== wanted && i < 1800; i++) {
    value = await metric(server, name);
    if (value !== wanted) await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return value;
}

export interface Choice {
  readonly text: string;
  readonly finish_reason: string | null;
  readonly token_ids?: readonly number[];
}

/** An event of a stream: a chunk, or an error. */
export interface StreamEvent {
  readonly choices?: readonly Choice[];
  readonly error?: { readonly message: string; readonly code: number; readonly type: string };
}

/** An open stream of /v1/completions. */
export class CompletionStream {
  readonly events: StreamEvent[] = [];
  /** It ended with `[DONE]`. */
  isDone = false;
  private readonly response: IncomingMessage;
  /** Resolves when the connection is closed, however. */
  readonly ended: Promise<void>;
  private news: (() => void)[] = [];

  private constructor(response: IncomingMessage) {
    this.response = response;
    let rest = '';
    response.setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split('\n\n');
      rest = parts.pop() ?? '';
      for (const part of parts) this.read(part);
      for (const resolve of this.news.splice(0)) resolve();
    });
    this.ended = new Promise((resolve) => {
      response.on('close', () => {
        resolve();
        for (const wake of this.news.splice(0)) wake();
      });
    });
    response.on('error', () => undefined);
  }

  static async open(server: Server, body: object): Promise<CompletionStream> {
    const url = new URL('/v1/completions', server.url);
    const sent = request(url, { method: 'POST', headers: { 'content-type': 'application/json' } });
    sent.end(JSON.stringify({ stream: true, ...body }));
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
    return new CompletionStream(response);
  }

  get text(): string {
    return this.events.map(({ choices }) => choices?.[0]?.text ?? '').join('');
  }

  get tokenIds(): number[] {
    return this.events.flatMap(({ choices }) => [...(choices?.[0]?.token_ids ?? [])]);
  }

  get finishReason(): string | null {
    return (
      this.events.findLast(({ choices }) => choices?.[0]?.finish_reason)?.choices?.[0]
        ?.finish_reason ?? null
    );
  }

  get error(): StreamEvent['error'] {
    return this.events.find(({ error }) => error)?.error;
  }

  /** Waits until the stream has said something. */
  async started(): Promise<void> {
    if (this.events.length > 0) return;
    await new Promise<void>((resolve) => this.news.push(resolve));
  }

  /** Goes away, as a client does whose user has closed the window. */
  destroy(): void {
    this.response.destroy();
  }

  private read(part: string): void {
    if (!part.startsWith('data: ')) return;
    const data = part.slice('data: '.length);
    if (data === '[DONE]') this.isDone = true;
    else this.events.push(JSON.parse(data) as StreamEvent);
  }
}
