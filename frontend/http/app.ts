// The fastify instance: our limits, our one error shape, our checks and our routes.
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { fastify, type FastifyInstance, type FastifyRequest } from 'fastify';
import { addAccessChecks } from './access.ts';
import type { HttpContext } from './context.ts';
import { ClientGone, sendError, toRequestError } from './http-errors.ts';
import { maxBodyBytes, readJsonBody } from './json-body.ts';
import { answerParserError } from './parser-errors.ts';
import { requestIdOf } from './request-id.ts';
import { addRoutes } from './routes.ts';

const limits = { maxHeaderSize: 32 * 1024, connectionsCheckingInterval: 1000 };
const headersTimeoutMs = 10_000;
const requestTimeoutMs = 30_000;
const keepAliveTimeoutMs = 75_000;

export function createApp(context: HttpContext): FastifyInstance {
  const { config } = context;
  const app = fastify({
    logger: false,
    bodyLimit: maxBodyBytes,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    forceCloseConnections: 'idle',
    requestIdHeader: false,
    genReqId: (request) => requestIdOf(request.headers['x-request-id']),
    rewriteUrl: (request) => stripRoot(request.url ?? '/', config.rootPath),
    clientErrorHandler: answerParserError,
    routerOptions: { maxParamLength: 1024 },
    ...(config.tls === null
      ? { http: limits }
      : { https: { ...limits, ...tlsOptions(config.tls) } }),
  }) as unknown as FastifyInstance;
  app.server.headersTimeout = headersTimeoutMs;
  app.server.maxHeadersCount = 100;
  app.server.maxConnections = 16_384;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', (_: FastifyRequest, payload: IncomingMessage) =>
    readJsonBody(payload),
  );
  app.setErrorHandler((error, request, reply) => {
    if (error instanceof ClientGone || reply.raw.destroyed) {
      reply.hijack();
      return;
    }
    const known = toRequestError(error);
    if (known.code === 'internal') {
      context.log.error({ id: request.id, err: String((error as Error).stack) }, 'request failed');
    }
    if (known.code === 'payload_too_large') reply.header('connection', 'close');
    sendError(reply, known);
  });
  app.addHook('onRequest', (request, reply, next) => {
    const startMs = performance.now();
    reply.raw.once('close', () => {
      const handler = request.routeOptions.url ?? 'none';
      // 499, as proxies log it: the client left before the answer was complete.
      const status = reply.raw.writableFinished ? reply.raw.statusCode : 499;
      context.metrics.answered(request.method, handler, status, performance.now() - startMs);
    });
    next();
  });
  // Whole answers: a client that does not read one cannot keep it. Ends with the answer, when Node
  // sets the time for keep-alive; streams have a timer of their own (sse.ts).
  app.addHook('onSend', (_request, reply, _payload, next) => {
    reply.raw.socket?.setTimeout(context.writeStallMs);
    next();
  });
  addAccessChecks(app, context);
  addRoutes(app, context);
  return app;
}

function tlsOptions({ keyPath, certPath }: { keyPath: string; certPath: string }) {
  return { key: readFileSync(keyPath), cert: readFileSync(certPath) };
}

/** --root-path: a proxy may leave its prefix on the URL. */
function stripRoot(url: string, rootPath: string): string {
  const prefix = rootPath.replace(/\/$/, '');
  return prefix !== '' && url.startsWith(`${prefix}/`) ? url.slice(prefix.length) : url;
}
