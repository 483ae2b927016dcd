// The part of /metrics that the engine's latest Status knows. Absent until the engine is there.
import { Counter, Gauge, type Registry } from 'prom-client';
import type { EngineStatus } from '../../common/wire/messages.ts';
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
};

export function addEngineMetrics(
  registry: Registry,
  labels: Labels,
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
  new Gauge({
    name: 'vllm:cache_config_info',
    help: 'The KV cache; the value is always 1.',
    labelNames: ['engine', 'block_size', 'num_gpu_blocks'],
    registers,
    collect() {
      const info = backend()?.client.info;
      this.reset();
      if (info === undefined) return;
      const { blockSize, numBlocks } = info;
      this.set({ engine: labels.engine, block_size: blockSize, num_gpu_blocks: numBlocks }, 1);
    },
  });
}
