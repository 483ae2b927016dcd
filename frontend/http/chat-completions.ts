// POST /v1/chat/completions.
import type { FastifyReply, FastifyRequest } from 'fastify';
import { toWellFormed } from '../../common/text/tokenizer.ts';
import { answerOptions } from './answer.ts';
import type { ChatMessage } from './backend.ts';
import { chatResponse, ChatStream, type ChatOptions } from './chat-format.ts';
import { chatMessages, turnOf, unusedTemplateArgs } from './chat-messages.ts';
import type { HttpContext } from './context.ts';
import { beginExchange, runExchange } from './generate.ts';
import { reportIgnored } from './ignored-fields.ts';
import { checkModel } from './models.ts';
import { nameRequest } from './request-id.ts';
import { bad, generateRequest, samplingParams, type RouteSampling } from './sampling.ts';
import type { ChatRequest } from './schema/chat-schema.ts';
import { notBuilt } from './schema/parse.ts';

export async function chatCompletions(
  context: HttpContext,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const exchange = beginExchange(context, request, reply, context.schemas.chat);
  const { client, text } = exchange.backend;
  const { config } = context;
  const { value: body, ignored } = exchange.parsed;
  nameRequest(request, reply, body.request_id);
  const { messages, ignored: ignoredInMessages } = chatMessages(body.messages, text);
  const ignoredArgs = unusedTemplateArgs(body, text);
  reportIgnored(reply, [...ignored, ...ignoredInMessages, ...ignoredArgs], config.strictApi);
  checkModel(body.model, config);
  checkTools(body);
  const turn = turnOf(body);
  const route = routeSampling(body);
  const sampling = await samplingParams(body, route, context, { client, text });
  const { text: promptText, tokenIds } = await text.applyChatTemplate(messages, turn);
  const generate = generateRequest(tokenIds, body, sampling, route, context);
  const final = messages[messages.length - 1]!;
  const role = turn.addGenerationPrompt ? 'assistant' : final.role;
  const options: ChatOptions = {
    ...answerOptions('chatcmpl', request, body, context),
    promptTokenIds: tokenIds,
    promptText: body.return_prompt_text ? promptText : null,
    role,
    echo: body.echo ? echoed(final, role) : '',
    numTop: sampling.logprobs ?? 0,
    areNamed: sampling.logprobTokenIds !== null,
  };
  return runExchange(exchange, [generate], {
    stream: body.stream ? new ChatStream(options) : null,
    whole: (outputs) => chatResponse(options, outputs),
  });
}

function routeSampling(body: ChatRequest): RouteSampling {
  if ((body.top_logprobs ?? 0) !== 0 && !body.logprobs) {
    throw bad('top_logprobs', 'needs logprobs');
  }
  const newName = body.max_completion_tokens;
  return {
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : null,
    logprobsField: 'top_logprobs',
    promptLogprobs: null,
    maxTokens: newName ?? body.max_tokens ?? null,
    maxTokensField: newName === undefined ? 'max_tokens' : 'max_completion_tokens',
    defaultMaxTokens: null,
  };
}

/** Tools are not built; with tool_choice none they would not be used anyway. */
function checkTools({ tools, tool_choice: choice }: ChatRequest): void {
  if (choice !== undefined && choice !== 'none') throw notBuilt('tool_choice');
  if (tools !== undefined && choice !== 'none') throw notBuilt('tools');
}

/** As in vLLM: the final message's text, if the answer goes on in its role. */
function echoed(final: ChatMessage, role: string): string {
  return final.role === role ? toWellFormed(final.content) : '';
}
