// The `http_*` part of /metrics, as the instrumentator that vLLM uses has it: names, labels and
// buckets, and that probes and scrapes do not count.
import { Counter, Histogram, Summary, type Registry } from 'prom-client';

export interface Answered {
  readonly method: string;
  /** The route's pattern, 'none' where there is none. */
  readonly handler: string;
  readonly status: number;
  readonly ms: number;
  /** By Content-Length; 0 = a stream. */
  readonly requestBytes: number;
  readonly responseBytes: number;
}

const uncounted = new Set(['/metrics', '/health', '/load', '/ping', '/version']);
const fineBuckets = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30,
  60,
];

export class HttpMetrics {
  private readonly requests: Counter;
  private readonly seconds: Histogram;
  private readonly fineSeconds: Histogram;
  private readonly requestBytes: Summary;
  private readonly responseBytes: Summary;

  constructor(registry: Registry) {
    const registers = [registry];
    this.requests = new Counter({
      name: 'http_requests_total',
      help: 'HTTP requests by method, status class and handler.',
      labelNames: ['method', 'status', 'handler'],
      registers,
    });
    const help = 'Time from the request line to the last byte of the answer';
    this.seconds = new Histogram({
      name: 'http_request_duration_seconds',
      help: `${help}.`,
      labelNames: ['method', 'handler'],
      buckets: [0.1, 0.5, 1],
      registers,
    });
    this.fineSeconds = new Histogram({
      name: 'http_request_duration_highr_seconds',
      help: `${help}, in finer buckets and without labels.`,
      buckets: fineBuckets,
      registers,
    });
    const bytes = (name: string, help: string) =>
      new Summary({ name, help, labelNames: ['handler'], percentiles: [], registers });
    this.requestBytes = bytes('http_request_size_bytes', 'Bytes of request bodies.');
    this.responseBytes = bytes('http_response_size_bytes', 'Bytes of answers that are no streams.');
  }

  answered({ method, handler, status, ms, requestBytes, responseBytes }: Answered): void {
    if (uncounted.has(handler)) return;
    this.requests.inc({ method, status: `${Math.floor(status / 100)}xx`, handler });
    this.seconds.observe({ method, handler }, ms / 1000);
    this.fineSeconds.observe(ms / 1000);
    this.requestBytes.observe({ handler }, requestBytes);
    this.responseBytes.observe({ handler }, responseBytes);
  }
}
