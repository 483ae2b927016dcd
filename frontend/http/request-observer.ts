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
  const prompts = requests.map(() => ({ isAccepted: false, numOpen: n, maxNumTokens: 0 }));
  let failure: 'abort' | 'error' | null = null;
  /** What the engine has refused never was one of its requests. */
  const countFailed = (prompt: (typeof prompts)[number]) => {
    if (failure !== null && prompt.isAccepted) metrics.failed(failure, prompt.numOpen);
  };
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
    accepted(index) {
      const prompt = prompts[index]!;
      const { promptTokenIds, sampling: own } = requests[index]!;
      prompt.isAccepted = true;
      metrics.request(promptTokenIds.length, n, own.maxTokens);
      countFailed(prompt);
    },
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
      failure = gone ? 'abort' : 'error';
      prompts.forEach(countFailed);
      ended(gone ? 'client gone' : error.message);
    },
  };
}
