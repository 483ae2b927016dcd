// The part of /metrics that the engine's latest Status knows. Absent until the engine is there.
import { Counter, Gauge, type Metric, type Registry } from 'prom-client';
import type { EngineStatus, EngineWelcome, HistogramCounts } from '../../common/wire/messages.ts';
import type { HttpConfig } from '../../common/config.ts';
import type { HttpBackend } from './backend.ts';

type Labels = Readonly<Record<'model_name' | 'engine', string>>;
type Read = (status: EngineStatus) => number;

const gauges: Readonly<Record<string, readonly [string, Read]>> = {
  num_requests_running: ['Requests in the running batch.', (s) => s.numRunning],
  num_requests_waiting: ['Requests that wait to be scheduled.', (s) => s.numWaiting],
  kv_cache_usage_perc: ['Share of KV blocks in use; 1 is all.', (s) => s.kvCacheUsage],
};

const counters: Readonly<Record<string, readonly [string, Read]>> = {
  prefix_cache_queries: ['Tokens looked up in the prefix cache.', (s) => s.prefixCacheQueries],
  prefix_cache_hits: ['Tokens found in the prefix cache.', (s) => s.prefixCacheHits],
  num_preemptions: ['Preemptions.', (s) => s.numPreemptions],
  prompt_tokens: ['Prompt tokens processed.', (s) => s.promptTokens],
  generation_tokens: ['Tokens generated.', (s) => s.generationTokens],
  device_busy_seconds: ['Time in which the device ran steps.', (s) => s.deviceBusyMs / 1000],
  device_idle_seconds: [
    'Time in which the device waited though there was work.',
    (s) => s.deviceIdleMs / 1000,
  ],
  prompt_tokens_cached: ['Prompt tokens found in the prefix cache.', (s) => s.cachedPromptTokens],
  corrupted_requests: ['Requests whose logits were not numbers.', (s) => s.numInvalidLogits],
};

/** What is said once, as labels; of null = their names alone matter. */
const infos: Readonly<
  Record<
    string,
    readonly [
      string,
      (info: EngineWelcome | null, config: HttpConfig) => Readonly<Record<string, string | number>>,
    ]
  >
> = {
  cache_config_info: [
    'The KV cache.',
    (info, { cacheLabels }) => ({
      block_size: info?.blockSize ?? 0,
      num_gpu_blocks: info?.numBlocks ?? 0,
      ...cacheLabels,
    }),
  ],
  device_info: ['What runs the model.', (info) => ({ device: info?.device ?? '' })],
};

/** One label beside the usual ones. */
const split: Readonly<
  Record<string, readonly [help: string, label: string, Readonly<Record<string, Read>>]>
> = {
  num_requests_waiting_by_reason: [
    'Requests that wait, by what they wait for.',
    'reason',
    { capacity: (s) => s.numWaiting, deferred: () => 0 },
  ],
  prompt_tokens_by_source_total: [
    'Prompt tokens processed, by where their keys and values come from.',
    'source',
    {
      local_compute: (s) => s.promptTokens - s.cachedPromptTokens,
      local_cache_hit: (s) => s.cachedPromptTokens,
      external_kv_transfer: () => 0,
    },
  ],
};

/** Name in Status -> name here. */
const histograms: Readonly<Record<string, readonly [string, string]>> = {
  timeToFirstToken: ['time_to_first_token_seconds', 'From arrival at the engine to first token.'],
  interTokenLatency: ['inter_token_latency_seconds', 'From a token of a request to its next one.'],
  timePerOutputToken: [
    'request_time_per_output_token_seconds',
    'Mean time of the tokens after the first.',
  ],
  queueTime: ['request_queue_time_seconds', 'From arrival to the first step.'],
  prefillTime: ['request_prefill_time_seconds', 'From the first step to the first token.'],
  decodeTime: ['request_decode_time_seconds', 'From the first token to the last.'],
  inferenceTime: ['request_inference_time_seconds', 'From the first step to the last token.'],
  iterationTokens: ['iteration_tokens_total', 'Tokens of a step.'],
};

export function addEngineMetrics(
  registry: Registry,
  labels: Labels,
  config: HttpConfig,
  backend: () => HttpBackend | null,
): void {
  const labelNames = ['model_name', 'engine'];
  const registers = [registry];
  const status = () => backend()?.client.status ?? null;
  for (const [name, [help, read]] of Object.entries(gauges)) {
    new Gauge({
      name: `vllm:${name}`,
      help,
      labelNames,
      registers,
      collect() {
        const now = status();
        this.set(labels, now === null ? 0 : read(now));
      },
    });
  }
  for (const [name, [help, read]] of Object.entries(counters)) {
    new Counter({
      name: `vllm:${name}_total`,
      help,
      labelNames,
      registers,
      collect() {
        const now = status();
        this.reset();
        this.inc(labels, now === null ? 0 : read(now));
      },
    });
  }
  for (const [name, [help, label, reads]] of Object.entries(split)) {
    const Type = name.endsWith('_total') ? Counter : Gauge;
    new Type({
      name: `vllm:${name}`,
      help,
      labelNames: [...labelNames, label],
      registers,
      collect() {
        const now = status();
        this.reset();
        for (const [value, read] of Object.entries(reads))
          this.inc({ ...labels, [label]: value }, now === null ? 0 : read(now));
      },
    });
  }
  for (const [key, [name, help]] of Object.entries(histograms)) {
    const read = () => status()?.histograms[key] ?? null;
    registry.registerMetric(readHistogram(`vllm:${name}`, help, labels, read));
  }
  for (const [name, [help, labelsOf]] of Object.entries(infos)) {
    new Gauge({
      name: `vllm:${name}`,
      help: `${help} The value is always 1.`,
      labelNames: ['engine', ...Object.keys(labelsOf(null, config))],
      registers,
      collect() {
        const info = backend()?.client.info;
        this.reset();
        if (info !== undefined) this.set({ engine: labels.engine, ...labelsOf(info, config) }, 1);
      },
    });
  }
}

/** A histogram that was counted elsewhere, in the form in which prom-client asks for one. */
function readHistogram(
  name: string,
  help: string,
  labels: Labels,
  read: () => HistogramCounts | null,
): Metric {
  const get = () => {
    const values: { labels: object; value: number; metricName: string }[] = [];
    const counted = read();
    if (counted !== null) {
      let total = 0;
      counted.counts.forEach((count, i) => {
        total += count;
        const le = counted.bounds[i] ?? '+Inf';
        values.push({ labels: { le, ...labels }, value: total, metricName: `${name}_bucket` });
      });
      values.push({ labels, value: counted.sum, metricName: `${name}_sum` });
      values.push({ labels, value: total, metricName: `${name}_count` });
    }
    return Promise.resolve({ name, help, type: 'histogram', aggregator: 'sum', values });
  };
  return { name, help, get, reset: () => undefined } as unknown as Metric;
}
