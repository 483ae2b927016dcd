// The door: what is checked before a body is read. Host, origin, preflight, key, encoding.
import type { FastifyInstance } from 'fastify';
import { RequestError } from '../../common/errors.ts';
import { createKeyCheck } from './auth.ts';
import type { HttpContext } from './context.ts';
import { corsHeaders, createOriginCheck, isLoopbackHost, preflightHeaders } from './origins.ts';

/** Probes have no key. */
const openPaths = new Set(['/health', '/ping']);

export function addAccessChecks(app: FastifyInstance, context: HttpContext): void {
  const { config } = context;
  const mayAsk = createKeyCheck(config.apiKeys);
  const isAllowed = createOriginCheck(config.allowedOrigins);
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    if (context.draining) reply.header('connection', 'close');
    const hosts = request.raw.headersDistinct.host ?? [];
    if (hosts.length > 1 || (hosts.length === 0 && request.raw.httpVersion !== '1.0')) {
      throw new RequestError('bad_request', 'the request needs one Host header');
    }
    if (config.loopbackOnly && !isLoopbackHost(request.headers.host)) {
      throw new RequestError('forbidden', 'the Host header is not a loopback name');
    }
    const { origin } = request.headers;
    const allowed = origin === undefined || isAllowed(origin);
    if (origin !== undefined && allowed) reply.headers(corsHeaders(origin));
    if (request.method === 'OPTIONS') {
      if (!allowed) throw new RequestError('forbidden', 'this origin is not allowed');
      const asked = request.headers['access-control-request-headers'];
      return reply.code(204).headers(preflightHeaders(asked)).send();
    }
    const path = request.url.split('?', 1)[0]!;
    if (!openPaths.has(path) && !mayAsk(request.headers.authorization)) {
      throw new RequestError('unauthorized', 'a valid API key is required');
    }
    const encoding = request.headers['content-encoding'] ?? 'identity';
    if (encoding.toLowerCase() !== 'identity') {
      throw new RequestError('unsupported_media_type', 'Content-Encoding is not supported');
    }
    return undefined;
  });
}
