// Load on an engine: whole lists of requests through EngineClient, timed from the first to the last
// end, as an offline user would see it.
import {
  defaultSamplingParams,
  defaultTextParams,
  LLM,
  type EngineStatus,
  type SamplingParams,
} from '../../frontend/index.ts';

export interface Work {
  readonly prompts: readonly Int32Array[];
  /** Output tokens of each, or of all. */
  readonly maxTokens: readonly number[] | number;
  readonly sampling?: Partial<SamplingParams>;
  /** Text comes out, else ids alone. */
  readonly text?: boolean;
}

export interface Outcome {
  readonly seconds: number;
  readonly numPromptTokens: number;
  readonly numOutputTokens: number;
  /** Share of the time in which the device waited though there was work. */
  readonly idleShare: number;
}

const stats = async (llm: LLM) => (await llm.engine.utility('stats')) as EngineStatus;

/** Throws if a request ends with an error. */
export async function runWork(llm: LLM, work: Work): Promise<Outcome> {
  const { prompts, maxTokens, sampling, text = false } = work;
  const before = await stats(llm);
  const start = performance.now();
  const counts = await Promise.all(
    prompts.map((promptTokenIds, i) =>
      runOne(llm, promptTokenIds, text, {
        ...defaultSamplingParams,
        temperature: 0,
        ignoreEos: !text,
        maxTokens: typeof maxTokens === 'number' ? maxTokens : maxTokens[i]!,
        ...sampling,
      }),
    ),
  );
  const seconds = (performance.now() - start) / 1000;
  const after = await stats(llm);
  return {
    seconds,
    numPromptTokens: prompts.reduce((sum, ids) => sum + ids.length, 0),
    numOutputTokens: counts.reduce((sum, count) => sum + count, 0),
    idleShare: (after.deviceIdleMs - before.deviceIdleMs) / (seconds * 1000),
  };
}

/** The number of output tokens. */
function runOne(
  llm: LLM,
  promptTokenIds: Int32Array,
  withText: boolean,
  sampling: SamplingParams,
): Promise<number> {
  const text = {
    ...defaultTextParams,
    detokenize: withText,
    returnTokenIds: !withText,
    finalOnly: true,
  };
  const request = { promptTokenIds, sampling, text, n: 1, priority: 0, cacheSalt: null };
  return new Promise<number>((resolve, reject) => {
    const submitted = llm.engine.submit(request, (output) => {
      if (output.finishReason === 'none') return;
      if (output.error) reject(output.error);
      else resolve(output.numOutputTokens);
      void submitted.then((handle) => handle.consumed(0, Buffer.byteLength(output.text)));
    });
    submitted.catch(reject);
  });
}

/** Random prompts and lengths that are the same in every run. */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  /** Whole, min to max. */
  between(min: number, max: number): number {
    this.state = (this.state + 0x9e3779b9) | 0;
    let z = Math.imul(this.state ^ (this.state >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return min + Math.floor((((z ^ (z >>> 16)) >>> 0) / 2 ** 32) * (max - min + 1));
  }

  prompts(count: number, length: number | readonly [number, number], maxId = 29_999): Int32Array[] {
    return Array.from({ length: count }, () => {
      const size = typeof length === 'number' ? length : this.between(...length);
      return Int32Array.from({ length: size }, () => this.between(100, maxId));
    });
  }
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
