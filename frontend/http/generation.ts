// One HTTP request's work in the engine: a GenerateRequest per prompt, all taken or none, ended
// together when the client goes away. Choice c of prompt p is number p * n + c.
import { RequestError } from '../../common/errors.ts';
import type { GenerateRequest, RequestHandle, RequestOutput } from '../engine-client-types.ts';
import type { EngineClientLike } from './backend.ts';

/** Sees what becomes of each prompt, for metrics and request logs. */
export interface GenerationObserver {
  /** The engine has taken the prompt; perhaps after its first outputs, or what ended it all. */
  accepted(prompt: number): void;
  output(choice: number, output: RequestOutput): void;
  failed(error: Error): void;
}

export interface GenerationSink {
  output(choice: number, output: RequestOutput): void;
  /** Nothing follows: the engine's error, the server's end, or ClientGone. */
  failed(error: Error): void;
}

export class Generation {
  readonly numChoices: number;
  private readonly handles: (RequestHandle | null)[];
  private readonly finished: boolean[];
  private readonly early: { readonly choice: number; readonly bytes: number }[] = [];
  private numUnfinished: number;
  private ended = false;
  private readonly observer: GenerationObserver;
  private readonly requests: readonly GenerateRequest[];
  private readonly n: number;
  private readonly sink: GenerationSink;

  /** All requests have the same n. */
  constructor(
    requests: readonly GenerateRequest[],
    sink: GenerationSink,
    observer: GenerationObserver,
  ) {
    this.observer = observer;
    this.requests = requests;
    this.n = requests[0]!.n;
    this.sink = sink;
    this.numChoices = this.n * requests.length;
    this.handles = requests.map(() => null);
    this.finished = new Array<boolean>(this.numChoices).fill(false);
    this.numUnfinished = this.numChoices;
  }

  /** Submits every prompt; when one is refused, all end with its error. Never rejects. */
  async submit(client: EngineClientLike): Promise<void> {
    const submitted = this.requests.map(async (request, prompt) => {
      try {
        const handle = await client.submit(request, (output) => this.receive(prompt, output));
        this.accepted(prompt, handle);
      } catch (error) {
        this.fail(error as Error);
      }
    });
    await Promise.all(submitted);
  }

  /** Grants credit again for outputs that the client has taken. */
  consumed(choice: number, bytes: number): void {
    const handle = this.handles[Math.floor(choice / this.n)];
    if (bytes === 0) return;
    // The first outputs may come before the promise of their submission is settled.
    if (handle === null) this.early.push({ choice, bytes });
    else handle?.consumed(choice % this.n, bytes);
  }

  /** Aborts what is open and says why, once. */
  fail(error: Error): void {
    if (this.ended) return;
    this.end();
    this.observer.failed(error);
    this.sink.failed(error);
  }

  private accepted(prompt: number, handle: RequestHandle): void {
    this.handles[prompt] = handle;
    this.observer.accepted(prompt);
    // It may have ended meanwhile, because of a sibling or the client.
    if (this.ended) {
      handle.abort();
      return;
    }
    for (const { choice, bytes } of this.early.splice(0)) this.consumed(choice, bytes);
  }

  private receive(prompt: number, output: RequestOutput): void {
    if (this.ended) return;
    const choice = prompt * this.n + output.index;
    if (this.finished[choice] !== false) return;
    if (output.finishReason === 'error') {
      this.fail(output.error ?? new RequestError('internal', 'generation failed'));
      return;
    }
    if (output.finishReason !== 'none') {
      this.finished[choice] = true;
      this.numUnfinished--;
    }
    this.observer.output(choice, output);
    this.sink.output(choice, output);
    if (this.numUnfinished === 0) this.end();
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    // Handles of requests that ended by themselves ignore it.
    if (this.numUnfinished > 0) for (const handle of this.handles) handle?.abort();
  }
}
