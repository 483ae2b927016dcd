// A text/event-stream over a hijacked reply. It writes bytes that are already formatted and tells
// when the socket has taken them; it knows nothing of what they mean.
import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { whileHalfClosed } from './half-closed.ts';

export const done = 'data: [DONE]\n\n';

export const eventStart = 'data: ';
export const eventEnd = '\n\n';

export function event(json: string): string {
  return `${eventStart}${json}${eventEnd}`;
}

export class SseStream {
  private readonly raw: ServerResponse;
  private readonly stallMs: number;
  private readonly onStall: () => void;
  private stallTimer: NodeJS.Timeout | null = null;
  private isBetweenEvents = true;

  /** Sends the headers that the reply has so far. Nothing may be sent through the reply after it. */
  constructor(
    reply: FastifyReply,
    handlers: { readonly drained: () => void; readonly stalled: () => void },
    stallMs: number,
  ) {
    reply.hijack();
    this.raw = reply.raw;
    this.stallMs = stallMs;
    this.onStall = handlers.stalled;
    for (const [name, value] of Object.entries(reply.getHeaders())) {
      if (value !== undefined) this.raw.setHeader(name, value);
    }
    this.raw.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // nginx would gather the stream otherwise.
      'x-accel-buffering': 'no',
    });
    this.raw.on('drain', () => {
      this.stopTimer();
      handlers.drained();
    });
    const forget = whileHalfClosed(reply.request.raw.socket, () => this.ask());
    this.raw.once('close', () => {
      this.stopTimer();
      forget();
    });
  }

  /** False when the socket is full: `drained` follows, and nothing should be written before it. */
  write(bytes: string): boolean {
    if (this.raw.destroyed) return false;
    this.isBetweenEvents = bytes.endsWith(eventEnd);
    const taken = this.raw.write(bytes);
    if (!taken) this.stallTimer ??= setTimeout(this.onStall, this.stallMs);
    return taken;
  }

  /** A comment, for a client that may be gone: what it is sent finds out. */
  private ask(): void {
    const { destroyed, writableEnded, writableNeedDrain } = this.raw;
    if (destroyed || writableEnded || writableNeedDrain || !this.isBetweenEvents) return;
    this.raw.write(`:${eventEnd}`);
  }

  /** The timer of a full socket goes on: it may be that the end is never taken either. */
  end(): void {
    this.raw.end();
  }

  /** Says what went wrong, then closes the connection: no [DONE], nothing that looks complete. */
  fail(errorJson: string): void {
    this.stopTimer();
    if (this.raw.destroyed) return;
    // An answer that has ended has no socket any more.
    const { socket } = this.raw;
    this.raw.end(event(errorJson), () => socket?.destroySoon());
  }

  /** Gives up on a reader that takes nothing. */
  destroy(): void {
    this.stopTimer();
    this.raw.destroy();
  }

  private stopTimer(): void {
    if (this.stallTimer !== null) clearTimeout(this.stallTimer);
    this.stallTimer = null;
  }
}
