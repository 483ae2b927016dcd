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

type RouteTable = readonly (readonly ['GET' | 'POST', string, Handler])[];

function routeTable(context: HttpContext): RouteTable {
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
      (request, reply) => {
        const id = (request.params as { '*': string })['*'];
        return id === '' ? sendWithoutSlash(request, reply, context) : modelOf(context, id);
      },
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
    const [path = ''] = request.url.split('?', 1);
    const methods = methodsOf(table, path);
    if (methods.length > 0) {
      reply.header('allow', [...methods, 'OPTIONS'].join(', '));
      throw new RequestError('method_not_allowed', `this route takes ${methods.join(' and ')}`);
    }
    if (!path.endsWith('/') || methodsOf(table, path.slice(0, -1)).length === 0)
      throw new RequestError(
        'not_found',
        `there is no route ${request.method} ${path.slice(0, maxPathShown)}`,
      );
    return sendWithoutSlash(request, reply, context);
  });
}

function methodsOf(table: RouteTable, path: string): string[] {
  return table.filter(([, url]) => matches(url, path)).map(([method]) => method);
}

function matches(url: string, path: string): boolean {
  return url.endsWith('*')
    ? path.startsWith(url.slice(0, -1)) && path.length >= url.length
    : url === path;
}

/** To the same route without the slash at its end, as vLLM does it: method and body stay. */
function sendWithoutSlash(
  { url }: FastifyRequest,
  reply: FastifyReply,
  { config }: HttpContext,
): FastifyReply {
  const [path = '', ...query] = url.split('?');
  const root = config.rootPath.replace(/\/$/, '');
  const location = [root + path.slice(0, -1), ...query].join('?');
  return reply.code(307).header('location', location).send();
}
