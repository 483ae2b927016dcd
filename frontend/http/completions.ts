// POST /v1/completions.
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { HttpConfig } from '../../common/config.ts';
import { maxRowLogprobs } from '../../common/limits.ts';
import { toWellFormed } from '../../common/text/tokenizer.ts';
import type { GenerateRequest } from '../engine-client-types.ts';
import { answerOptions } from './answer.ts';
import type { HttpBackend } from './backend.ts';
import {
  completionResponse,
  CompletionStream,
  type CompletionOptions,
  type CompletionPrompt,
} from './completion-format.ts';
import type { HttpContext } from './context.ts';
import { beginExchange, runExchange } from './generate.ts';
import { reportIgnored } from './ignored-fields.ts';
import { checkModel } from './models.ts';
import { nameRequest } from './request-id.ts';
import { bad, generateRequest, samplingParams, type RouteSampling } from './sampling.ts';
import type { CompletionRequest, Prompt } from './schema/completion-schema.ts';

export async function completions(
  context: HttpContext,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const exchange = beginExchange(context, request, reply, context.schemas.completion);
  const { client, text } = exchange.backend;
  const { config } = context;
  const { value: body, ignored } = exchange.parsed;
  nameRequest(request, reply, body.request_id);
  reportIgnored(reply, ignored, config.strictApi);
  checkModel(body.model, config);
  const echo = body.echo ?? false;
  const n = body.n ?? 1;
  const { choices } = config.limits;
  if (body.prompt.length * n > choices) {
    throw bad('n', `times the number of prompts must be at most ${choices}`);
  }
  if (body.max_tokens === 0 && !echo) throw bad('max_tokens', 'must be 1 or more without echo');
  if (body.max_tokens === 0 && body.logprob_token_ids?.length) {
    throw bad('logprob_token_ids', 'needs max_tokens of 1 or more');
  }
  const route: RouteSampling = {
    logprobs: body.logprobs ?? null,
    logprobsField: 'logprobs',
    // The echoed prompt has logprobs too.
    promptLogprobs: echo ? (body.logprobs ?? null) : null,
    maxTokens: body.max_tokens ?? null,
    maxTokensField: 'max_tokens',
    defaultMaxTokens: 16,
  };
  const sampling = await samplingParams(body, route, context, { client, text });
  const prompts: CompletionPrompt[] = [];
  const requests: GenerateRequest[] = [];
  for (const prompt of body.prompt) {
    const encoded = await encodePrompt(prompt, body, { client, text });
    prompts.push(encoded);
    requests.push(generateRequest(encoded.tokenIds, body, sampling, route, context));
  }
  checkPromptLogprobs(body, sampling.promptLogprobs, prompts);
  checkQueue(requests, client.info.maxNumSeqs, config);
  const options: CompletionOptions = {
    ...answerOptions('cmpl', request, body, context),
    prompts,
    echo,
    echoOnly: body.max_tokens === 0,
    logprobs: route.logprobs,
    areNamed: sampling.logprobTokenIds !== null,
  };
  return runExchange(exchange, requests, {
    stream: body.stream ? new CompletionStream(options) : null,
    whole: (outputs) => completionResponse(options, outputs),
  });
}

/** They are in each of a prompt's choices. */
function checkPromptLogprobs(
  { n = 1, prompt_logprobs }: CompletionRequest,
  numAlternatives: number | null,
  prompts: readonly CompletionPrompt[],
): void {
  if (numAlternatives === null) return;
  const numTokens = prompts.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  const asked = n * numTokens * (numAlternatives + 1);
  if (asked <= maxRowLogprobs) return;
  throw bad(
    prompt_logprobs === undefined ? 'logprobs' : 'prompt_logprobs',
    `asks for ${asked} logprobs of prompts, over all choices, and the answer may hold ${maxRowLogprobs}`,
  );
}

/** A list that even an idle server could not queue whole: trying again would not help. */
function checkQueue(
  requests: readonly GenerateRequest[],
  maxNumSeqs: number,
  { maxQueuedRequests, maxQueuedTokens }: HttpConfig,
): void {
  // The engine takes one prompt alone, or says what is wrong with it.
  if (requests.length === 1) return;
  const { n } = requests[0]!;
  const numChoices = n * requests.length;
  if (maxQueuedRequests > 0 && numChoices > maxNumSeqs + maxQueuedRequests) {
    throw bad(
      'prompt',
      `asks for ${numChoices} choices over all prompts; ${maxNumSeqs} run (--max-num-seqs) and ` +
        `${maxQueuedRequests} wait (--max-queued-requests)`,
    );
  }
  const numTokens = n * requests.reduce((sum, it) => sum + it.promptTokenIds.length, 0);
  if (maxQueuedTokens > 0 && numTokens > maxQueuedTokens) {
    throw bad(
      'prompt',
      `has ${numTokens} tokens over all choices, and ${maxQueuedTokens} may wait (--max-queued-tokens)`,
    );
  }
}

async function encodePrompt(
  prompt: Prompt,
  body: CompletionRequest,
  { client, text }: HttpBackend,
): Promise<CompletionPrompt> {
  const tokenIds =
    typeof prompt === 'string'
      ? await text.encode(prompt, {
          addSpecialTokens: body.add_special_tokens ?? true,
          allowSpecial: body.allow_special_tokens,
        })
      : Int32Array.from(prompt);
  if (tokenIds.length === 0) throw bad('prompt', 'has no tokens');
  const { vocabSize } = client.info;
  if (tokenIds.some((id) => id >= vocabSize)) {
    throw bad('prompt', `has a token id that is not below the vocabulary's ${vocabSize}`);
  }
  if (!body.echo) return { tokenIds, text: '', firstTokenText: '' };
  const decode = (ids: Int32Array) => text.decode(ids, { skipSpecialTokens: false });
  return {
    tokenIds,
    text: typeof prompt === 'string' ? toWellFormed(prompt) : await decode(tokenIds),
    firstTokenText: await decode(tokenIds.subarray(0, 1)),
  };
}
