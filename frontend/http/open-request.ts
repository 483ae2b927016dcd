// A generate request from its body to the last byte of its answer: whatever ends it early (the
// client that goes away, the server that closes) reaches the engine as an abort at once.
import type { FastifyReply } from 'fastify';
import type { EngineClientLike } from './backend.ts';
import type { HttpContext } from './context.ts';
import type { Generation } from './generation.ts';
import { ClientGone } from './http-errors.ts';
import { onSocketClose } from './socket-close.ts';

export class OpenRequest {
  private generation: Generation | null = null;
  private ended: Error | null = null;

  constructor(context: HttpContext, reply: FastifyReply) {
    context.open.add(this);
    const closed = () => {
      forget();
      context.open.delete(this);
      this.fail(new ClientGone());
      context.ended();
    };
    const forget = onSocketClose(reply.request.raw.socket, closed);
    // After the last byte as well as when the connection breaks.
    if (reply.raw.destroyed || reply.request.raw.socket.destroyed) closed();
    else reply.raw.once('close', closed);
  }

  /** Submits the generation; rejects when the request has been ended meanwhile, or is refused. */
  async run(generation: Generation, client: EngineClientLike): Promise<void> {
    if (this.ended !== null) throw this.ended;
    this.generation = generation;
    await generation.submit(client);
  }

  /** A generation that has ended by itself is not touched. */
  fail(error: Error): void {
    this.ended ??= error;
    this.generation?.fail(this.ended);
  }
}
