// A scripted engine and byte-level text services, and a server over them on a real socket. A token
// is a byte; 256 begins a text, 257 ends one.
import type { HttpConfig } from '../../../common/config.ts';
import {
  defaultHttpLimits,
  defaultHttpTimeouts,
  defaultRequestLimits,
} from '../../../common/limits.ts';
import { RequestError } from '../../../common/errors.ts';
import { createLogger } from '../../../common/log.ts';
import type { EngineStatus, EngineWelcome } from '../../../common/wire/messages.ts';
import type {
  GenerateRequest,
  RequestHandle,
  RequestOutput,
} from '../../../frontend/engine-client-types.ts';
import { LogprobList, type TokenLogprobs } from '../../../frontend/logprob-list.ts';
import type {
  EngineClientLike,
  HttpBackend,
  TextServiceLike,
} from '../../../frontend/http/backend.ts';
import { idleStatus } from '../../fixtures/idle-status.ts';
import { createHttpServer, type HttpServerOptions } from '../../../frontend/http/server.ts';

export const vocabSize = 258;

export const baseConfig: HttpConfig = {
  listenFd: -1,
  tls: null,
  servedModelNames: ['test-model', 'alias/of-it'],
  modelPath: '/nowhere/secret-path',
  maxModelLen: 512,
  apiKeys: [],
  allowedOrigins: [],
  loopbackOnly: true,
  rootPath: '',
  strictApi: false,
  maxLogprobs: 20,
  limits: defaultHttpLimits,
  timeouts: defaultHttpTimeouts,
  streamInterval: 1,
  priorityScheduling: false,
  maxQueuedRequests: 4096,
  maxQueuedTokens: 4_000_000,
  enablePromptTokensDetails: false,
  forceIncludeUsage: false,
  enableLogRequests: false,
  enableDebugTimeline: false,
  cacheLabels: { cache_dtype: 'auto' },
  defaultSampling: {},
};

export const fakeText: TextServiceLike = {
  encode: (text, { addSpecialTokens, allowSpecial = false }) => {
    const pieces = allowSpecial ? text.split('<s>') : [text];
    const ids = pieces.flatMap((piece, i) => [...(i > 0 ? [256] : []), ...Buffer.from(piece)]);
    return Promise.resolve(Int32Array.from([...(addSpecialTokens ? [256] : []), ...ids]));
  },
  applyChatTemplate: (messages, { addGenerationPrompt, continueFinalMessage }) => {
    const text =
      messages.map(({ role, content, name }) => `${name ?? role}:${content}`).join('\n') +
      (continueFinalMessage ? '' : '\n') +
      (addGenerationPrompt ? 'assistant:' : '');
    return Promise.resolve({ text, tokenIds: Int32Array.from([256, ...Buffer.from(text)]) });
  },
  templateUses: (name) => ['enable_thinking', 'reasoning_effort', 'name'].includes(name),
  decode: (tokenIds, { skipSpecialTokens }) =>
    Promise.resolve(
      Array.from(tokenIds)
        .map((id) =>
          id < 256 ? String.fromCharCode(id) : skipSpecialTokens ? '' : id === 256 ? '<s>' : '</s>',
        )
        .join(''),
    ),
  tokenStrings: (tokenIds) => Array.from(tokenIds, (id) => `<${id}>`),
};

/** One accepted request of the fake engine. */
export class Submission {
  readonly request: GenerateRequest;
  readonly consumed: { index: number; bytes: number }[] = [];
  aborted = false;
  private readonly onOutput: (output: RequestOutput) => void;
  private readonly numOutputTokens: number[] = [];
  private readonly onAbort: (() => void)[] = [];

  constructor(request: GenerateRequest, onOutput: (output: RequestOutput) => void) {
    this.request = request;
    this.onOutput = onOutput;
  }

  handle(): RequestHandle {
    return {
      abort: () => {
        this.aborted = true;
        for (const resolve of this.onAbort.splice(0)) resolve();
      },
      consumed: (index, bytes) => this.consumed.push({ index, bytes }),
    };
  }

  untilAborted(): Promise<void> {
    return this.aborted ? Promise.resolve() : new Promise((resolve) => this.onAbort.push(resolve));
  }

  /** Says `text` for a choice, a token a byte; `end` is the last output's finish. */
  say(text: string, end: Partial<RequestOutput> = {}, index = 0): void {
    const { request } = this;
    const tokenIds = Int32Array.from(Buffer.from(text));
    const numOutputTokens = (this.numOutputTokens[index] ?? 0) + tokenIds.length;
    this.numOutputTokens[index] = numOutputTokens;
    const { logprobs, logprobTokenIds } = request.sampling;
    const entries = (id: number) =>
      logprobTokenIds === null
        ? fakeLogprobs(id, logprobs!)
        : fakeNamedLogprobs(id, logprobTokenIds);
    this.onOutput({
      index,
      text,
      tokenIds: request.text.returnTokenIds || logprobs !== null ? tokenIds : new Int32Array(0),
      logprobs: logprobs === null ? null : listOf(Array.from(tokenIds, entries)),
      promptLogprobs: null,
      finishReason: 'none',
      stopReason: null,
      error: null,
      numPromptTokens: request.promptTokenIds.length,
      numCachedTokens: 0,
      numOutputTokens,
      creditBytes: Buffer.byteLength(text),
      ...end,
    });
  }

  fail(error: RequestError, index = 0): void {
    this.say('', { finishReason: 'error', error }, index);
  }

  /** Logprobs of every prompt token but the first, as the engine brings them. */
  promptLogprobs(from = 1, to = Infinity): LogprobList {
    const { promptTokenIds, sampling } = this.request;
    const numTop = sampling.promptLogprobs ?? 0;
    const ids = promptTokenIds.subarray(from, Math.min(to, promptTokenIds.length));
    return listOf(
      Array.from(ids, (id) => fakeLogprobs(id, numTop)),
      from,
    );
  }
}

/** As they come, behind some that are another request's. */
export function listOf(tokens: readonly TokenLogprobs[], position = 0): LogprobList {
  const all = [fakeLogprobs(33, 1), ...tokens];
  const bytes = all.flatMap((token) => [...token.bytes]);
  const counts = all.map(({ ids }) => ids.length);
  return new LogprobList(
    {
      ids: Int32Array.from(all.flatMap(({ ids }) => [...ids])),
      logprobs: Float32Array.from(all.flatMap(({ logprobs }) => [...logprobs])),
      ranks: Int32Array.from(all.flatMap(({ ranks }) => [...ranks])),
      textStart: prefixSums(bytes.map(({ length }) => length)),
      text: Buffer.concat(bytes),
    },
    prefixSums(counts).subarray(1),
    position,
  );
}

function prefixSums(counts: readonly number[]): Uint32Array {
  const sums = new Uint32Array(counts.length + 1);
  for (const [i, count] of counts.entries()) sums[i + 1] = sums[i]! + count;
  return sums;
}

/** The token itself is second best at -1, after "!" at -0.5. */
export function fakeLogprobs(id: number, numTop: number): TokenLogprobs {
  const ids = [id, ...[33, id, 63].slice(0, numTop)];
  const ranks = [2, ...[1, 2, 3].slice(0, numTop)];
  return {
    ids: Int32Array.from(ids),
    ranks: Int32Array.from(ranks),
    logprobs: Float32Array.from(ranks, (rank) => -rank / 2),
    bytes: ids.map((token) => Uint8Array.of(token)),
  };
}

/** The token itself at -1, then those that were named, each at a tenth of its id. */
function fakeNamedLogprobs(id: number, named: readonly number[]): TokenLogprobs {
  const ids = [id, ...named];
  return {
    ids: Int32Array.from(ids),
    ranks: Int32Array.from(ids, (_, i) => (i === 0 ? 2 : 0)),
    logprobs: Float32Array.from(ids, (other) => (other === id ? -1 : -other / 8)),
    bytes: ids.map((token) => Uint8Array.of(token)),
  };
}

export class FakeClient implements EngineClientLike {
  readonly submissions: Submission[] = [];
  status: EngineStatus | null = idleStatus;
  stalledMs = 0;
  lost = false;
  numOpen = 0;
  /** Runs after a request was accepted. */
  script: (submission: Submission) => void = (submission) => {
    for (let index = 0; index < submission.request.n; index++) {
      submission.say('Hel', {}, index);
      submission.say('lo', { finishReason: 'stop' }, index);
    }
  };
  /** Holds back the engine's word that it has taken a request; outputs may come before it. */
  acceptance: Promise<void> = Promise.resolve();
  /** Thrown by submit where set. */
  refusal: ((request: GenerateRequest) => RequestError | null) | null = null;
  info: EngineWelcome = {
    kind: 'welcome',
    protocol: 3,
    frontendId: 1,
    attachKey: 'k',
    generation: 0,
    model: 'test-model',
    device: 'cpu (avx2, 2 threads)',
    vocabSize,
    maxModelLen: 512,
    maxLogprobs: 20,
    maxNumSeqs: 8,
    blockSize: 16,
    numBlocks: 100,
    eosTokenIds: [257],
    priorityScheduling: false,
    limits: defaultRequestLimits,
    defaultSampling: {},
  };
  private readonly waiting: ((submission: Submission) => void)[] = [];

  async submit(
    request: GenerateRequest,
    onOutput: (output: RequestOutput) => void,
  ): Promise<RequestHandle> {
    await Promise.resolve();
    const refused = this.refusal?.(request);
    if (refused) throw refused;
    const submission = new Submission(request, onOutput);
    this.submissions.push(submission);
    setImmediate(() => {
      this.waiting.shift()?.(submission);
      this.script(submission);
    });
    await this.acceptance;
    return submission.handle();
  }

  /** The next request that is submitted after this call. */
  nextSubmission(): Promise<Submission> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  utility(method: string): Promise<unknown> {
    return Promise.resolve({ method });
  }
}

export interface TestServer {
  readonly url: string;
  readonly port: number;
  readonly client: FakeClient;
  readonly server: ReturnType<typeof createHttpServer>;
  backend: HttpBackend | null;
  readonly post: (
    path: string,
    body: unknown,
    headers?: Record<string, string>,
  ) => Promise<Response>;
}

interface Teardown {
  teardown(close: () => Promise<void>): unknown;
}

export async function startServer(
  t: Teardown,
  config: Partial<HttpConfig> = {},
  options: Partial<HttpServerOptions> = {},
): Promise<TestServer> {
  const client = new FakeClient();
  const { maxModelLen } = { ...baseConfig, ...config };
  client.info = { ...client.info, maxModelLen };
  const log = createLogger({ process: 'test', level: 'error', format: 'text' });
  const server = createHttpServer({
    config: { ...baseConfig, ...config },
    log,
    backend: () => test.backend,
    listen: { host: '127.0.0.1', port: 0 },
    ...options,
  });
  await server.listen();
  t.teardown(() => server.close());
  const url = `http://127.0.0.1:${server.port!}`;
  const test: TestServer = {
    url,
    port: server.port!,
    client,
    server,
    backend: { client, text: fakeText },
    post: (path, body, headers = {}) =>
      fetch(url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
  };
  return test;
}

/** The data of every event of a stream, parsed; '[DONE]' stays a string. */
export async function readEvents(response: Response): Promise<unknown[]> {
  const text = await response.text();
  return text
    .split('\n\n')
    .filter((part) => part !== '')
    .map((part) => part.replace(/^data: /, ''))
    .map((data) => (data === '[DONE]' ? data : (JSON.parse(data) as unknown)));
}
