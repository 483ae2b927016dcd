// POST /tokenize and /detokenize.
import type { FastifyReply, FastifyRequest } from 'fastify';
import { maxModelLen, requireBackend, type HttpContext } from './context.ts';
import { chatMessages, turnOf, unusedTemplateArgs } from './chat-messages.ts';
import { reportIgnored } from './ignored-fields.ts';
import { checkModel } from './models.ts';
import { bad } from './sampling.ts';
import { parseRequest } from './schema/parse.ts';

export async function tokenize(context: HttpContext, request: FastifyRequest, reply: FastifyReply) {
  const { text } = requireBackend(context);
  const { config } = context;
  const { value: body, ignored } = parseRequest(context.schemas.tokenize, request.body);
  const chat = body.messages === undefined ? null : chatMessages(body.messages, text);
  const ignoredArgs = unusedTemplateArgs(body, text);
  reportIgnored(reply, [...ignored, ...(chat?.ignored ?? []), ...ignoredArgs], config.strictApi);
  checkModel(body.model, config);
  if ((body.prompt === undefined) === (chat === null)) {
    throw bad('prompt', 'or messages is required, one of the two');
  }
  let tokens: Int32Array;
  if (chat === null) {
    const addSpecialTokens = body.add_special_tokens ?? true;
    const allowSpecial = body.allow_special_tokens;
    tokens = await text.encode(body.prompt ?? '', { addSpecialTokens, allowSpecial });
  } else {
    tokens = (await text.applyChatTemplate(chat.messages, turnOf(body))).tokenIds;
  }
  return {
    count: tokens.length,
    max_model_len: maxModelLen(context),
    tokens: Array.from(tokens),
    token_strs: body.return_token_strs ? text.tokenStrings(tokens) : null,
  };
}

export async function detokenize(
  context: HttpContext,
  request: FastifyRequest,
  reply: FastifyReply,
) {
  const { text, client } = requireBackend(context);
  const { config } = context;
  const { value: body, ignored } = parseRequest(context.schemas.detokenize, request.body);
  reportIgnored(reply, ignored, config.strictApi);
  checkModel(body.model, config);
  const { vocabSize } = client.info;
  if (body.tokens.some((id) => id >= vocabSize)) {
    throw bad('tokens', `has a token id that is not below the vocabulary's ${vocabSize}`);
  }
  return {
    prompt: await text.decode(Int32Array.from(body.tokens), { skipSpecialTokens: false }),
  };
}
