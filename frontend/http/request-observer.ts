// What a request adds to the metrics, and its two log lines with --enable-log-requests. Neither
// has prompts, outputs or keys.
import type { FastifyRequest } from 'fastify';
import type { GenerateRequest, RequestOutput } from '../engine-client-types.ts';
import type { HttpContext } from './context.ts';
import type { GenerationObserver } from './generation.ts';
import { ClientGone } from './http-errors.ts';

export function observeRequest(
  context: HttpContext,
  request: FastifyRequest,
  requests: readonly GenerateRequest[],
): GenerationObserver {
  const { metrics, log, config } = context;
  const startMs = performance.now();
  const { n, sampling, text } = requests[0]!;
  const streamed = !text.finalOnly;
  let numFinished = 0;
  /** By prompt: choices that are open, tokens of the longest that is not. */
  const prompts = requests.map(() => ({ numOpen: n, maxNumTokens: 0 }));
  for (const { promptTokenIds, sampling: own } of requests) {
    metrics.request(promptTokenIds.length, n, own.maxTokens);
  }
  if (config.enableLogRequests) {
    const numPromptTokens = requests.map((it) => it.promptTokenIds.length);
    const { temperature, topP, topK, maxTokens } = sampling;
    log.info(
      { id: request.id, numPromptTokens, n, stream: streamed, temperature, topP, topK, maxTokens },
      'request received',
    );
  }
  const ended = (reason: string) => {
    if (!config.enableLogRequests) return;
    const ms = Math.round(performance.now() - startMs);
    log.info({ id: request.id, reason, ms }, 'request ended');
  };
  return {
    output(choice: number, output: RequestOutput) {
      if (output.finishReason === 'none') return;
      metrics.finished(output.finishReason, output, performance.now() - startMs);
      const prompt = prompts[Math.floor(choice / n)]!;
      prompt.maxNumTokens = Math.max(prompt.maxNumTokens, output.numOutputTokens);
      if (--prompt.numOpen === 0) metrics.finishedPrompt(prompt.maxNumTokens);
      if (++numFinished === n * requests.length) ended(output.finishReason);
    },
    failed(error) {
      const gone = error instanceof ClientGone;
      for (let i = numFinished; i < n * requests.length; i++) {
        metrics.failed(gone ? 'abort' : 'error');
      }
      ended(gone ? 'client gone' : error.message);
    },
  };
}
