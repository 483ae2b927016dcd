// What both generate routes do around their own work: the request is opened and its body parsed,
// and in the end its prompts are run, streamed or not.
import type { FastifyReply, FastifyRequest } from 'fastify';
import type * as z from 'zod';
import type { GenerateRequest, RequestOutput } from '../engine-client-types.ts';
import { sendWhole } from './answer.ts';
import type { HttpBackend } from './backend.ts';
import { collectResponse } from './collect-response.ts';
import { requireOpenBackend, type HttpContext } from './context.ts';
import { OpenRequest } from './open-request.ts';
import { observeRequest } from './request-observer.ts';
import { parseRequest, type Parsed, type RequestSchema } from './schema/parse.ts';
import { streamResponse, type StreamFormat } from './stream-response.ts';

/** A generate request under way. */
export interface Exchange {
  readonly context: HttpContext;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  readonly backend: HttpBackend;
  readonly open: OpenRequest;
}

/** How the route writes its answer. */
export interface AnswerFormat {
  /** Null where the answer is whole. */
  readonly stream: StreamFormat | null;
  /** outputs[choice] */
  whole(outputs: readonly RequestOutput[]): object;
}

/** From here on the request ends when its client leaves, or the server. Throws RequestError. */
export function beginExchange<Shape extends z.ZodRawShape>(
  context: HttpContext,
  request: FastifyRequest,
  reply: FastifyReply,
  schema: RequestSchema<Shape>,
): Exchange & { readonly parsed: Parsed<z.output<z.ZodObject<Shape>>> } {
  const backend = requireOpenBackend(context);
  const open = new OpenRequest(context, reply);
  const parsed = parseRequest(schema, request.body);
  return { context, request, reply, backend, open, parsed };
}

/** Runs one request per prompt; resolves with what the route's handler answers. */
export async function runExchange(
  { context, request, reply, backend: { client }, open }: Exchange,
  requests: readonly GenerateRequest[],
  format: AnswerFormat,
): Promise<unknown> {
  const observer = observeRequest(context, request, requests);
  if (format.stream !== null)
    return streamResponse(context, client, reply, open, requests, format.stream, observer);
  const outputs = await collectResponse(client, open, requests, observer);
  return sendWhole(reply, format.whole(outputs), outputs);
}
