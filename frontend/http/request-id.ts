// X-Request-Id: taken from the client where it is a plain token, else from the body's request_id, made
// otherwise.
import { randomUUID } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';

export const requestIdPattern = /^[\w.:-]{1,128}$/;

export function requestIdOf(header: string | string[] | undefined): string {
  if (typeof header === 'string' && requestIdPattern.test(header)) return header;
  return randomUUID().replaceAll('-', '');
}

/** The body names the request, unless the header does. */
export function nameRequest(request: FastifyRequest, reply: FastifyReply, id: string | undefined) {
  if (id === undefined || request.headers['x-request-id'] === request.id) return;
  request.id = id;
  reply.header('x-request-id', id);
}
