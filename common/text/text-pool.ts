// A few worker threads for long text. A thread starts with the first call that needs it and has one
// call at a time; one thread is always left for calls that are not giant; a call that takes too
// long loses its thread, and only that call fails.
import { Worker } from 'node:worker_threads';
import { RequestError } from '../errors.ts';
import type { TextCall, TextServiceOptions } from './text-calls.ts';
import type { WorkerReply } from './text-thread.ts';

export interface TextPoolLimits {
  readonly numThreads: number;
  /** Calls larger than this (characters or ids) never take the last free thread. */
  readonly giantSize: number;
  /** What may wait, in all; one call always may. */
  readonly maxQueuedSize: number;
}

export const defaultTextPoolLimits: TextPoolLimits = {
  numThreads: 2,
  giantSize: 256 * 1024,
  maxQueuedSize: 32 * 1024 * 1024,
};

interface OpenCall {
  readonly call: TextCall;
  readonly size: number;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  open: OpenCall | null;
  timer: NodeJS.Timeout | null;
}

export class TextPool {
  private readonly options: TextServiceOptions;
  private readonly limits: TextPoolLimits;
  private readonly threads = new Set<Thread>();
  private readonly queue: OpenCall[] = [];
  private queuedSize = 0;
  private closed = false;

  constructor(options: TextServiceOptions, limits: TextPoolLimits = defaultTextPoolLimits) {
    this.options = options;
    this.limits = limits;
  }

  /** Rejects with RequestError: the call's own, or queue_full when too much is waiting. */
  run(call: TextCall, size: number): Promise<unknown> {
    if (this.closed) return Promise.reject(closing());
    if (this.queue.length > 0 && this.queuedSize + size > this.limits.maxQueuedSize)
      return Promise.reject(
        new RequestError('queue_full', 'too much text waits for tokenization', null, 1000),
      );
    return new Promise((resolve, reject) => {
      this.queuedSize += size;
      this.queue.push({ call, size, resolve, reject });
      this.schedule();
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const open of this.queue.splice(0)) open.reject(closing());
    const threads = [...this.threads];
    for (const thread of threads) this.drop(thread, closing());
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
  }

  /** First come first served, except that a giant lets others pass rather than take the last thread. */
  private schedule(): void {
    for (let i = 0; i < this.queue.length; i++) {
      const open = this.queue[i]!;
      const isGiant = open.size > this.limits.giantSize;
      if (isGiant && this.numGiants >= Math.max(1, this.limits.numThreads - 1)) continue;
      const thread = this.freeThread();
      if (!thread) return;
      this.queue.splice(i--, 1);
      this.queuedSize -= open.size;
      this.start(thread, open);
    }
  }

  private get numGiants(): number {
    let count = 0;
    for (const { open } of this.threads) if (open && open.size > this.limits.giantSize) count++;
    return count;
  }

  private freeThread(): Thread | null {
    for (const thread of this.threads) if (thread.open === null) return thread;
    return this.threads.size < this.limits.numThreads ? this.spawn() : null;
  }

  private spawn(): Thread {
    // Beside this module in dist/, and beside the bundle that has taken it in.
    const worker = new Worker(new URL('./text-thread.js', import.meta.url), {
      workerData: this.options,
    });
    const thread: Thread = { worker, open: null, timer: null };
    this.threads.add(thread);
    worker.on('message', (reply: WorkerReply) => this.finish(thread, reply));
    worker.on('error', (error) => this.drop(thread, error));
    worker.on('exit', () => this.drop(thread, new Error('a text thread has ended')));
    worker.unref();
    return thread;
  }

  private start(thread: Thread, open: OpenCall): void {
    thread.open = open;
    thread.timer = setTimeout(() => {
      const error = new RequestError('bad_request', 'the text takes too long to tokenize');
      this.drop(thread, error);
      void thread.worker.terminate();
    }, this.options.textLimits.callMs);
    // A call under way keeps the process alive, an idle thread does not.
    thread.worker.ref();
    thread.worker.postMessage(open.call);
  }

  private finish(thread: Thread, reply: WorkerReply): void {
    const open = this.release(thread);
    thread.worker.unref();
    if (reply.error) open?.reject(RequestError.from(reply.error));
    else if (reply.failure !== undefined) open?.reject(new Error(reply.failure));
    else open?.resolve(reply.result);
    this.schedule();
  }

  /** The thread is lost; its call fails, the rest of the queue goes on with another. */
  private drop(thread: Thread, error: Error): void {
    if (!this.threads.delete(thread)) return;
    this.release(thread)?.reject(error);
    if (!this.closed) this.schedule();
  }

  private release(thread: Thread): OpenCall | null {
    const { open } = thread;
    if (thread.timer) clearTimeout(thread.timer);
    thread.open = null;
    thread.timer = null;
    return open;
  }
}

function closing(): RequestError {
  return new RequestError('shutting_down', 'the server is shutting down');
}
