// What every route shares: configuration, the engine when there is one, and the requests that are
// open now.
import type { HttpConfig } from '../../common/config.ts';
import { RequestError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { HttpBackend } from './backend.ts';
import type { Metrics } from './metrics.ts';
import type { OpenRequest } from './open-request.ts';
import type { ChatSchema } from './schema/chat-schema.ts';
import type { CompletionSchema } from './schema/completion-schema.ts';
import type { DetokenizeSchema, TokenizeSchema } from './schema/tokenize-schema.ts';

export interface HttpContext {
  readonly config: HttpConfig;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** What requests may say, within the configured limits. */
  readonly schemas: {
    readonly chat: ChatSchema;
    readonly completion: CompletionSchema;
    readonly tokenize: TokenizeSchema;
    readonly detokenize: DetokenizeSchema;
  };
  /** How often slow clients are looked for. */
  readonly checkMs: number;
  /** Unix seconds at which the server was made. */
  readonly createdAt: number;
  readonly backend: () => HttpBackend | null;
  /** Generate requests whose answers are not complete. */
  readonly open: Set<OpenRequest>;
  /** What was warned of already. */
  readonly warned: Set<string>;
  /** Set by drain(): new work is refused. */
  draining: boolean;
  /** Called whenever an open request ends. */
  readonly ended: () => void;
}

/** The engine, or the reason why there is none. */
export function requireBackend(context: HttpContext): HttpBackend {
  const backend = context.backend();
  if (backend === null) {
    throw new RequestError('not_ready', 'the model is still loading', null, 1000);
  }
  return backend;
}

/** As requireBackend, for routes that start new work. */
export function requireOpenBackend(context: HttpContext): HttpBackend {
  if (context.draining) {
    throw new RequestError('shutting_down', 'the server is shutting down', null, 1000);
  }
  return requireBackend(context);
}

/** Tokens of a request, prompt and output: as the engine says, once there is one. */
export function maxModelLen({ backend, config }: HttpContext): number {
  return backend()?.client.info.maxModelLen ?? config.maxModelLen;
}

/** A warning that clients cause, and therefore cannot repeat. */
export function warnOnce(context: HttpContext, message: string): void {
  if (context.warned.has(message)) return;
  context.warned.add(message);
  context.log.warn(message);
}
