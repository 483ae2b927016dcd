// What all answers to one request share.
import type { FastifyRequest } from 'fastify';
import type { HttpContext } from './context.ts';

export interface Envelope {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  /** The name under which the client asked for the model. */
  readonly model: string;
}

export function envelope(
  prefix: 'cmpl' | 'chatcmpl',
  request: FastifyRequest,
  model: string | undefined,
  context: HttpContext,
): Envelope {
  return {
    id: `${prefix}-${request.id}`,
    created: Math.floor(Date.now() / 1000),
    model: model ?? context.config.servedModelNames[0]!,
  };
}
