// How long requests wait and run, seen from the engine: from their arrival here to their last token,
// by one clock, whoever asked and whether the answer was streamed. vLLM's buckets.
import type { HistogramCounts } from '../common/wire/messages.ts';
import { Histogram } from './histogram.ts';
import type { Request } from './request.ts';

const firstTokenBounds = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  160, 640, 2560,
];
const tokenTimeBounds = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const requestTimeBounds = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];
const stepTokensBounds = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];

export class Latencies {
  private readonly all = {
    timeToFirstToken: new Histogram(firstTokenBounds),
    interTokenLatency: new Histogram(tokenTimeBounds),
    timePerOutputToken: new Histogram(tokenTimeBounds),
    queueTime: new Histogram(requestTimeBounds),
    prefillTime: new Histogram(requestTimeBounds),
    decodeTime: new Histogram(requestTimeBounds),
    inferenceTime: new Histogram(requestTimeBounds),
    iterationTokens: new Histogram(stepTokensBounds),
  };

  /** By name; the counts themselves, not a copy. */
  get current(): Record<keyof Latencies['all'], HistogramCounts> {
    const counts = {} as Record<keyof Latencies['all'], HistogramCounts>;
    for (const name in this.all) {
      const key = name as keyof Latencies['all'];
      counts[key] = this.all[key].current;
    }
    return counts;
  }

  step(numTokens: number): void {
    this.all.iterationTokens.add(numTokens);
  }

  token(request: Request, nowUs: number): void {
    if (request.numOutputTokens === 1) {
      request.firstTokenUs = nowUs;
      this.all.timeToFirstToken.add((nowUs - request.arrivedUs) / 1e6);
    } else this.all.interTokenLatency.add((nowUs - request.lastTokenUs) / 1e6);
    request.lastTokenUs = nowUs;
  }

  /** It ended as it should: by its tokens, its length or a stop string. */
  finished(request: Request): void {
    const { arrivedUs, firstRunUs, firstTokenUs, lastTokenUs, numOutputTokens } = request;
    if (numOutputTokens === 0) return;
    const decodeS = (lastTokenUs - firstTokenUs) / 1e6;
    this.all.queueTime.add((firstRunUs - arrivedUs) / 1e6);
    this.all.prefillTime.add((firstTokenUs - firstRunUs) / 1e6);
    this.all.decodeTime.add(decodeS);
    this.all.inferenceTime.add((lastTokenUs - firstRunUs) / 1e6);
    if (numOutputTokens > 1) this.all.timePerOutputToken.add(decodeS / (numOutputTokens - 1));
  }
}
