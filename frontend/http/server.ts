// The HTTP server: fastify with our limits, our one error shape and our routes. It answers from
// its first moment (503 until there is a backend) and can be drained.
import { readFileSync } from 'node:fs';
import { STATUS_CODES, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { fastify, type FastifyInstance, type FastifyRequest } from 'fastify';
import type { HttpConfig } from '../../common/config.ts';
import { errorCodes, RequestError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { addAccessChecks } from './access.ts';
import type { HttpBackend } from './backend.ts';
import type { HttpContext } from './context.ts';
import { ClientGone, errorBody, sendError, toRequestError } from './http-errors.ts';
import { maxBodyBytes, readJsonBody } from './json-body.ts';
import { Metrics } from './metrics.ts';
import { requestIdOf } from './request-id.ts';
import { addRoutes } from './routes.ts';

export interface HttpServerOptions {
  readonly config: HttpConfig;
  readonly log: Logger;
  /** null until the engine is ready, and while it is gone. */
  readonly backend: () => HttpBackend | null;
  /** In place of config.listenFd, for programs that bind themselves. */
  readonly listen?: { readonly host: string; readonly port: number };
  /** How long a full socket may stand still. */
  readonly writeStallMs?: number;
}

export interface HttpServer {
  /** Resolves when connections are accepted. */
  listen(): Promise<void>;
  /** Takes no new work; open requests go on. */
  drain(): void;
  /** Resolves when no generate request is open. */
  idle(): Promise<void>;
  /** Ends open requests with shutting_down, then closes every connection. */
  close(): Promise<void>;
  /** Generate requests whose answers are not complete. */
  readonly numOpen: number;
  /** The port, once it listens on one. */
  readonly port: number | null;
}

const limits = { maxHeaderSize: 32 * 1024, connectionsCheckingInterval: 1000 };
const headersTimeoutMs = 10_000;
const requestTimeoutMs = 30_000;
const keepAliveTimeoutMs = 75_000;
/** How long answers may take to leave when the server closes. */
const closeGraceMs = 1_000;

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { config, log, backend } = options;
  const waiting = new Set<() => void>();
  const context: HttpContext = {
    config,
    log,
    backend,
    metrics: new Metrics(config, backend),
    createdAt: Math.floor(Date.now() / 1000),
    writeStallMs: options.writeStallMs ?? 30_000,
    open: new Set(),
    draining: false,
    ended: () => {
      if (context.open.size > 0) return;
      for (const resolve of waiting) resolve();
      waiting.clear();
    },
  };
  const app = createApp(config, context);
  return {
    async listen() {
      await app.ready();
      const where = options.listen ?? { fd: config.listenFd };
      await new Promise<void>((resolve, reject) => {
        app.server.once('error', reject).listen(where, resolve);
      });
    },
    drain() {
      context.draining = true;
    },
    idle() {
      return new Promise((resolve) => {
        waiting.add(resolve);
        context.ended();
      });
    },
    async close() {
      context.draining = true;
      const error = new RequestError('shutting_down', 'the server is shutting down', null, 1000);
      for (const request of context.open) request.fail(error);
      const force = setTimeout(() => app.server.closeAllConnections(), closeGraceMs);
      await app.close();
      clearTimeout(force);
    },
    get numOpen() {
      return context.open.size;
    },
    get port() {
      return (app.server.address() as AddressInfo | null)?.port ?? null;
    },
  };
}

function createApp(config: HttpConfig, context: HttpContext): FastifyInstance {
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
  addAccessChecks(app, context);
  app.addHook('onRequest', (request, reply, next) => {
    const startMs = performance.now();
    reply.raw.once('close', () => {
      const handler = request.routeOptions.url ?? 'none';
      const status = reply.raw.statusCode;
      context.metrics.answered(request.method, handler, status, performance.now() - startMs);
    });
    next();
  });
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

/** Bytes that are no HTTP request never become one; the answer is written by hand. */
function answerParserError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const status =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? 431
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? 408
        : 400;
  const { error: shape } = errorBody(new RequestError('bad_request', 'the request is malformed'));
  const body = JSON.stringify({
    error: { ...shape, type: errorCodes.bad_request.type, code: status },
  });
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nconnection: close\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
