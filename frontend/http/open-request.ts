// A generate request from its body to the last byte of its answer: whatever ends it early (the
// client that goes away, the server that closes) reaches the engine as an abort at once.
import type { FastifyReply } from 'fastify';
import type { EngineClientLike } from './backend.ts';
import type { HttpContext } from './context.ts';
import type { Generation } from './generation.ts';
import { ClientGone } from './http-errors.ts';
import { whileHalfClosed } from './half-closed.ts';
import { onSocketClose } from './socket-events.ts';

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
    const { socket, httpVersionMinor } = reply.request.raw;
    const forgetClose = onSocketClose(socket, closed);
    const forgetEnd = whileHalfClosed(socket, () => {
      // HTTP/1.0 knows no 100 Continue: such a client is taken for gone.
      if (httpVersionMinor === 0) socket.destroy();
      else if (reply.raw.socket !== null && !reply.raw.headersSent) reply.raw.writeContinue();
    });
    const forget = () => {
      forgetClose();
      forgetEnd();
    };
    // After the last byte as well as when the connection breaks.
    if (reply.raw.destroyed || socket.destroyed) closed();
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
