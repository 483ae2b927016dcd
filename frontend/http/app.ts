// The fastify instance: our limits, our one error shape, our checks and our routes.
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { fastify, type FastifyInstance, type FastifyRequest } from 'fastify';
import { addAccessChecks } from './access.ts';
import { capConnections, closeAfterLast } from './connections.ts';
import { warnOnce, type HttpContext } from './context.ts';
import { answerHalfClosed } from './half-closed.ts';
import { ClientGone, sendError, toRequestError } from './http-errors.ts';
import { readJsonBody } from './json-body.ts';
import { answerParserErrors, answerPlainHttp } from './parser-errors.ts';
import { requestIdOf } from './request-id.ts';
import { addRoutes } from './routes.ts';

const noSchema = () => () => {
  throw new Error('routes have no JSON schemas');
};

export function createApp(context: HttpContext): FastifyInstance {
  const { config } = context;
  const { limits, timeouts } = config;
  const parser = {
    maxHeaderSize: limits.headerBytes,
    // Missing is an answer of ours (access.ts), not of Node's.
    requireHostHeader: false,
    connectionsCheckingInterval: context.checkMs,
  };
  const app = fastify({
    logger: false,
    bodyLimit: limits.bodyBytes,
    requestTimeout: timeouts.requestMs,
    keepAliveTimeout: timeouts.keepAliveMs,
    maxRequestsPerSocket: limits.requestsPerConnection,
    forceCloseConnections: 'idle',
    // Requests that come while it closes are refused as all others are (context.ts).
    return503OnClosing: false,
    requestIdHeader: false,
    genReqId: (request) => requestIdOf(request.headers['x-request-id']),
    rewriteUrl: (request) => stripRoot(request.url ?? '/', config.rootPath),
    // answerParserErrors has them.
    clientErrorHandler: () => undefined,
    frameworkErrors: (error, request, reply) => {
      reply.header('x-request-id', request.id);
      sendError(reply, toRequestError(error));
    },
    routerOptions: { maxParamLength: 1024 },
    // Bodies are checked by zod: fastify need not load its compilers of JSON schemas.
    schemaController: { compilersFactory: { buildValidator: noSchema, buildSerializer: noSchema } },
    ...(config.tls === null
      ? { http: parser }
      : {
          https: {
            ...parser,
            ...tlsOptions(config.tls),
            handshakeTimeout: timeouts.headersMs,
          },
        }),
  }) as unknown as FastifyInstance;
  app.server.headersTimeout = timeouts.headersMs;
  app.server.maxHeadersCount = limits.headers;
  capConnections(app.server, {
    limits,
    isTls: config.tls !== null,
    refused: (reason) => warnOnce(context, `connections are refused: ${reason}`),
  });
  answerParserErrors(app.server);
  if (config.tls === null) answerHalfClosed(app.server);
  else answerPlainHttp(app.server);
  closeAfterLast(app.server, limits.requestsPerConnection);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', (_: FastifyRequest, payload: IncomingMessage) =>
    readJsonBody(payload, limits),
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
      context.metrics.http.answered({
        method: request.method,
        handler,
        status,
        ms: performance.now() - startMs,
        requestBytes: Number(request.headers['content-length'] ?? 0),
        responseBytes: Number(reply.getHeader('content-length') ?? 0),
      });
    });
    next();
  });
  // Whole answers: a client that does not read one cannot keep it. Ends with the answer, when Node
  // sets the time for keep-alive; streams have a timer of their own (sse.ts).
  app.addHook('onSend', (_request, reply, _payload, next) => {
    reply.raw.socket?.setTimeout(timeouts.stallMs);
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
