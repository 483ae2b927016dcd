// The worker thread of the text pool: the same services, one call at a time. Holds no sockets, so
// that it can be terminated at any moment.
import { parentPort, workerData } from 'node:worker_threads';
import { RequestError, type ErrorInfo } from '../errors.ts';
import { InlineText, runCall, type TextCall, type TextServiceOptions } from './text-calls.ts';

export interface WorkerReply {
  readonly result?: unknown;
  /** The input is at fault. */
  readonly error?: ErrorInfo;
  /** The thread is at fault. */
  readonly failure?: string;
}

const port = parentPort!;
let text: InlineText | null = null;

port.on('message', (call: TextCall) => {
  port.postMessage(answer(call));
});

function answer(call: TextCall): WorkerReply {
  try {
    text ??= new InlineText(workerData as TextServiceOptions);
    return { result: runCall(text, call) };
  } catch (error) {
    if (error instanceof RequestError) return { error: error.info() };
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}
