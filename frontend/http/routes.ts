// Every route in one table. Paths that exist under another method answer 405, all others 404.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { RequestError } from '../../common/errors.ts';
import { packageVersion } from '../../common/package-root.ts';
import { chatCompletions } from './chat-completions.ts';
import { completions } from './completions.ts';
import { requireBackend, type HttpContext } from './context.ts';
import { checkHealth } from './health.ts';
import { modelList, modelOf } from './models.ts';
import { detokenize, tokenize } from './tokenize.ts';

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown;

function routeTable(context: HttpContext): readonly (readonly ['GET' | 'POST', string, Handler])[] {
  const health: Handler = (_, reply) => {
    checkHealth(context);
    return reply.send();
  };
  const engine = (method: string) => requireBackend(context).client.utility(method, {});
  return [
    ['POST', '/v1/completions', (request, reply) => completions(context, request, reply)],
    ['POST', '/v1/chat/completions', (request, reply) => chatCompletions(context, request, reply)],
    ['GET', '/v1/models', () => modelList(context)],
    [
      'GET',
      '/v1/models/*',
      (request) => modelOf(context, (request.params as { '*': string })['*']),
    ],
    ['POST', '/tokenize', (request, reply) => tokenize(context, request, reply)],
    ['POST', '/detokenize', (request, reply) => detokenize(context, request, reply)],
    ['GET', '/health', health],
    ['GET', '/ping', health],
    ['POST', '/ping', health],
    ['GET', '/version', () => ({ version: packageVersion })],
    ['GET', '/load', () => ({ server_load: context.open.size })],
    ['GET', '/memory', () => engine('memory')],
    ...(context.config.enableDebugTimeline
      ? ([['GET', '/debug/timeline', () => engine('timeline')]] as const)
      : []),
    [
      'GET',
      '/metrics',
      async (_, reply) => {
        const { registry } = context.metrics;
        return reply.type(registry.contentType).send(await registry.metrics());
      },
    ],
  ];
}

const maxPathShown = 200;

export function addRoutes(app: FastifyInstance, context: HttpContext): void {
  const table = routeTable(context);
  for (const [method, url, handler] of table) {
    app.route({ method, url, handler: async (request, reply) => handler(request, reply) });
  }
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!;
    const methods = table.filter(([, url]) => matches(url, path)).map(([method]) => method);
    if (methods.length === 0)
      throw new RequestError(
        'not_found',
        `there is no route ${request.method} ${path.slice(0, maxPathShown)}`,
      );
    reply.header('allow', [...methods, 'OPTIONS'].join(', '));
    throw new RequestError('method_not_allowed', `this route takes ${methods.join(' and ')}`);
  });
}

function matches(url: string, path: string): boolean {
  return url.endsWith('*') ? path.startsWith(url.slice(0, -1)) : url === path;
}
