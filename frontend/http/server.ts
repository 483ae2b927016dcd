// The HTTP server: it answers from its first moment (503 until there is a backend), is drained, and
// is closed. Who binds the port, and when the engine is there, others decide.
import type { AddressInfo } from 'node:net';
import type { HttpConfig } from '../../common/config.ts';
import { RequestError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { createApp } from './app.ts';
import type { HttpBackend } from './backend.ts';
import type { HttpContext } from './context.ts';
import { Metrics } from './metrics.ts';
import { makeChatSchema } from './schema/chat-schema.ts';
import { makeCompletionSchema } from './schema/completion-schema.ts';
import { makeDetokenizeSchema, makeTokenizeSchema } from './schema/tokenize-schema.ts';

export interface HttpServerOptions {
  readonly config: HttpConfig;
  readonly log: Logger;
  /** null until the engine is ready, and while it is gone. */
  readonly backend: () => HttpBackend | null;
  /** In place of config.listenFd, for programs that bind themselves. */
  readonly listen?: { readonly host: string; readonly port: number };
  /** How often slow clients are looked for. */
  readonly checkMs?: number;
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
    schemas: {
      chat: makeChatSchema(config.limits),
      completion: makeCompletionSchema(config.limits),
      tokenize: makeTokenizeSchema(config.limits),
      detokenize: makeDetokenizeSchema(config.limits),
    },
    checkMs: options.checkMs ?? 1000,
    createdAt: Math.floor(Date.now() / 1000),
    open: new Set(),
    warned: new Set(),
    draining: false,
    ended: () => {
      if (context.open.size > 0) return;
      for (const resolve of waiting) resolve();
      waiting.clear();
    },
  };
  const app = createApp(context);
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
