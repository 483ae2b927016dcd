// Outputs as an async generator: queues what comes, grants credit for what is taken, aborts when
// the reader leaves before the end.
import type { RequestHandle, RequestOutput } from './engine-client-types.ts';

export async function* streamOutputs(
  submit: (onOutput: (output: RequestOutput) => void) => Promise<RequestHandle>,
  n: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<RequestOutput, void, undefined> {
  const queue: RequestOutput[] = [];
  let wake: () => void = () => undefined;
  signal?.throwIfAborted();
  const handle = await submit((output) => {
    queue.push(output);
    wake();
  });
  const abort = () => handle.abort();
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  let numOpen = n;
  try {
    while (numOpen > 0) {
      const output = queue.shift();
      if (!output) {
        await new Promise<void>((resolve) => (wake = resolve));
        continue;
      }
      if (output.finishReason !== 'none') numOpen--;
      yield output;
      handle.consumed(output.index, output.creditBytes);
    }
  } finally {
    signal?.removeEventListener('abort', abort);
    if (numOpen > 0) abort();
  }
}
