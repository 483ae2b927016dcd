// GET /metrics: vLLM's names, labels and buckets. Counts of tokens and of the queue come from the
// engine's Status at scrape time; latencies are what this server saw. Times to the first token are
// known for streams only, for other answers come in one piece.
import { Counter, Histogram, Registry } from 'prom-client';
import type { HttpConfig } from '../../common/config.ts';
import type { FinishReason } from '../../common/wire/messages.ts';
import type { HttpBackend } from './backend.ts';
import { addEngineMetrics } from './engine-metrics.ts';
import { addProcessMetrics } from './process-metrics.ts';

const ttftBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  160, 640, 2560,
];
const tokenTimeBuckets = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const latencyBuckets = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];

/** 1-2-5 decades up to `max`. */
export function decadeBuckets(max: number): number[] {
  const buckets: number[] = [];
  for (let decade = 1; ; decade *= 10) {
    for (const digit of [1, 2, 5]) {
      if (digit * decade > max) return buckets;
      buckets.push(digit * decade);
    }
  }
}

export class Metrics {
  readonly registry = new Registry();
  private readonly labels: Readonly<Record<'model_name' | 'engine', string>>;
  private readonly ttft: Histogram;
  private readonly interToken: Histogram;
  private readonly perOutputToken: Histogram;
  private readonly e2e: Histogram;
  private readonly decode: Histogram;
  private readonly promptTokens: Histogram;
  private readonly generationTokens: Histogram;
  private readonly paramsN: Histogram;
  private readonly paramsMaxTokens: Histogram;
  private readonly success: Counter;
  private readonly http: Counter;
  private readonly httpSeconds: Histogram;

  constructor(config: HttpConfig, backend: () => HttpBackend | null) {
    this.labels = { model_name: config.servedModelNames[0]!, engine: '0' };
    addProcessMetrics(this.registry);
    addEngineMetrics(this.registry, this.labels, backend);
    const tokens = decadeBuckets(config.maxModelLen);
    this.ttft = this.histogram('time_to_first_token_seconds', ttftBuckets);
    this.interToken = this.histogram('inter_token_latency_seconds', tokenTimeBuckets);
    this.perOutputToken = this.histogram('request_time_per_output_token_seconds', tokenTimeBuckets);
    this.e2e = this.histogram('e2e_request_latency_seconds', latencyBuckets);
    this.decode = this.histogram('request_decode_time_seconds', latencyBuckets);
    this.promptTokens = this.histogram('request_prompt_tokens', tokens);
    this.generationTokens = this.histogram('request_generation_tokens', tokens);
    this.paramsN = this.histogram('request_params_n', [1, 2, 5, 10, 20]);
    this.paramsMaxTokens = this.histogram('request_params_max_tokens', tokens);
    this.success = new Counter({
      name: 'vllm:request_success_total',
      help: 'Choices that ended, by finish reason.',
      labelNames: ['model_name', 'engine', 'finished_reason'],
      registers: [this.registry],
    });
    for (const finished_reason of ['stop', 'length', 'abort', 'error']) {
      this.success.inc({ ...this.labels, finished_reason }, 0);
    }
    this.http = new Counter({
      name: 'http_requests_total',
      help: 'HTTP requests by method, status class and handler.',
      labelNames: ['method', 'status', 'handler'],
      registers: [this.registry],
    });
    this.httpSeconds = new Histogram({
      name: 'http_request_duration_seconds',
      help: 'Time from the request line to the last byte of the answer.',
      labelNames: ['method', 'handler'],
      buckets: [0.1, 0.5, 1],
      registers: [this.registry],
    });
  }

  request(numPromptTokens: number, n: number, maxTokens: number | null): void {
    this.promptTokens.observe(this.labels, numPromptTokens);
    this.paramsN.observe(this.labels, n);
    if (maxTokens !== null) this.paramsMaxTokens.observe(this.labels, maxTokens);
  }

  firstToken(ms: number): void {
    this.ttft.observe(this.labels, ms / 1000);
  }

  laterTokens(ms: number): void {
    this.interToken.observe(this.labels, ms / 1000);
  }

  /** decodeMs: from the first to the last output; null where only the last was seen. */
  finished(
    finished_reason: FinishReason,
    numTokens: number,
    e2eMs: number,
    decodeMs: number | null,
  ): void {
    this.success.inc({ ...this.labels, finished_reason });
    this.generationTokens.observe(this.labels, numTokens);
    this.e2e.observe(this.labels, e2eMs / 1000);
    if (decodeMs === null) return;
    this.decode.observe(this.labels, decodeMs / 1000);
    if (numTokens > 1) this.perOutputToken.observe(this.labels, decodeMs / 1000 / (numTokens - 1));
  }

  failed(finished_reason: 'abort' | 'error'): void {
    this.success.inc({ ...this.labels, finished_reason });
  }

  answered(method: string, handler: string, status: number, ms: number): void {
    this.http.inc({ method, status: `${Math.floor(status / 100)}xx`, handler });
    this.httpSeconds.observe({ method, handler }, ms / 1000);
  }

  private histogram(name: string, buckets: number[]): Histogram {
    return new Histogram({
      name: `vllm:${name}`,
      help: help[name] ?? name,
      labelNames: ['model_name', 'engine'],
      buckets,
      registers: [this.registry],
    });
  }
}

const help: Readonly<Record<string, string>> = {
  time_to_first_token_seconds: 'From the request to its first output; streams only.',
  inter_token_latency_seconds: 'Between successive outputs of a choice; streams only.',
  request_time_per_output_token_seconds: 'Decode time per token after the first; streams only.',
  e2e_request_latency_seconds: 'From the request to the end of a choice.',
  request_decode_time_seconds: 'From the first to the last output of a choice; streams only.',
  request_prompt_tokens: 'Prompt tokens of a request.',
  request_generation_tokens: 'Tokens generated for a choice.',
  request_params_n: 'Choices asked for.',
  request_params_max_tokens: 'Most tokens that a choice may have.',
};
