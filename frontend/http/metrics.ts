// GET /metrics: vLLM's names, labels and buckets. What the engine counts and times comes from its
// Status at scrape time; the rest is what this server saw.
import { Counter, Histogram, Registry } from 'prom-client';
import type { HttpConfig } from '../../common/config.ts';
import type { FinishReason } from '../../common/wire/messages.ts';
import type { RequestOutput } from '../engine-client-types.ts';
import type { HttpBackend } from './backend.ts';
import { addEngineMetrics } from './engine-metrics.ts';
import { HttpMetrics } from './http-metrics.ts';
import { addProcessMetrics } from './process-metrics.ts';

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
  readonly http: HttpMetrics;
  private readonly labels: Readonly<Record<'model_name' | 'engine', string>>;
  private readonly e2e: Histogram;
  private readonly promptTokens: Histogram;
  private readonly generationTokens: Histogram;
  private readonly maxGenerationTokens: Histogram;
  private readonly prefillComputed: Histogram;
  private readonly paramsN: Histogram;
  private readonly paramsMaxTokens: Histogram;
  private readonly success: Counter;

  constructor(config: HttpConfig, backend: () => HttpBackend | null) {
    this.labels = { model_name: config.servedModelNames[0]!, engine: '0' };
    addProcessMetrics(this.registry);
    addEngineMetrics(this.registry, this.labels, config, backend);
    const tokens = decadeBuckets(config.maxModelLen);
    this.e2e = this.histogram('e2e_request_latency_seconds', latencyBuckets);
    this.promptTokens = this.histogram('request_prompt_tokens', tokens);
    this.generationTokens = this.histogram('request_generation_tokens', tokens);
    this.maxGenerationTokens = this.histogram('request_max_num_generation_tokens', tokens);
    this.prefillComputed = this.histogram('request_prefill_kv_computed_tokens', tokens);
    this.paramsN = this.histogram('request_params_n', [1, 2, 5, 10, 20]);
    this.paramsMaxTokens = this.histogram('request_params_max_tokens', tokens);
    this.success = new Counter({
      name: 'vllm:request_success_total',
      help: 'Choices that ended, by finish reason.',
      labelNames: ['model_name', 'engine', 'finished_reason'],
      registers: [this.registry],
    });
    for (const finished_reason of ['stop', 'length', 'repetition', 'abort', 'error']) {
      this.success.inc({ ...this.labels, finished_reason }, 0);
    }
    this.http = new HttpMetrics(this.registry);
  }

  request(numPromptTokens: number, n: number, maxTokens: number | null): void {
    this.promptTokens.observe(this.labels, numPromptTokens);
    this.paramsN.observe(this.labels, n);
    if (maxTokens !== null) this.paramsMaxTokens.observe(this.labels, maxTokens);
  }

  finished(finished_reason: FinishReason, output: RequestOutput, e2eMs: number): void {
    this.success.inc({ ...this.labels, finished_reason });
    this.generationTokens.observe(this.labels, output.numOutputTokens);
    const numComputed = output.numPromptTokens - output.numCachedTokens;
    this.prefillComputed.observe(this.labels, numComputed);
    this.e2e.observe(this.labels, e2eMs / 1000);
  }

  /** All choices of a prompt have ended; the longest had so many tokens. */
  finishedPrompt(maxNumTokens: number): void {
    this.maxGenerationTokens.observe(this.labels, maxNumTokens);
  }

  failed(finished_reason: 'abort' | 'error', numChoices: number): void {
    this.success.inc({ ...this.labels, finished_reason }, numChoices);
  }

  private histogram(name: string, buckets: number[]): Histogram {
    const histogram = new Histogram({
      name: `vllm:${name}`,
      help: help[name] ?? name,
      labelNames: ['model_name', 'engine'],
      buckets,
      registers: [this.registry],
    });
    // There from the start: a rate over the first request needs a value from before it.
    histogram.zero(this.labels);
    return histogram;
  }
}

const help: Readonly<Record<string, string>> = {
  e2e_request_latency_seconds: 'From the request to the end of a choice.',
  request_prompt_tokens: 'Prompt tokens of a request.',
  request_generation_tokens: 'Tokens generated for a choice.',
  request_max_num_generation_tokens: 'Tokens of the longest choice of a prompt.',
  request_prefill_kv_computed_tokens: 'Prompt tokens that were not found in the prefix cache.',
  request_params_n: 'Choices asked for.',
  request_params_max_tokens: 'Most tokens that a choice may have.',
};
