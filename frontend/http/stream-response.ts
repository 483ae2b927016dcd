// Streams the choices of a Generation as events. While the socket is full, or a long chunk is on its
// way piece by piece, nothing else is written: what comes meanwhile is merged and goes out as one
// chunk a choice, and only what the socket has taken is credited back, so that a slow reader holds
// back its own request and nothing else.
import type { FastifyReply } from 'fastify';
import type { GenerateRequest, RequestOutput } from '../engine-client-types.ts';
import type { EngineClientLike } from './backend.ts';
import type { HttpContext } from './context.ts';
import { Generation, type GenerationObserver, type GenerationSink } from './generation.ts';
import { ClientGone, errorBody, toRequestError } from './http-errors.ts';
import { mergeOutputs } from './merge-outputs.ts';
import type { OpenRequest } from './open-request.ts';
import { joinParts, pieceLength } from './sliced-json.ts';
import { done, SseStream } from './sse.ts';

/** Turns outputs into events; `''` where there is nothing to say, parts of text where it may be long. */
export interface StreamFormat {
  /** Before the first output of any choice. */
  begin(): string;
  delta(choice: number, output: RequestOutput): string | Iterable<string>;
  /** After the last choice has ended. */
  end(): string;
}

/**
 * Resolves when the stream has been written, or only what failed and the rest of a chunk have not;
 * rejects with what failed before its first byte.
 */
export function streamResponse(
  context: HttpContext,
  client: EngineClientLike,
  reply: FastifyReply,
  open: OpenRequest,
  requests: readonly GenerateRequest[],
  format: StreamFormat,
  observer: GenerationObserver,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const sink = new StreamSink(context, reply, format, { resolve, reject });
    const generation = new Generation(requests, sink, observer);
    sink.generation = generation;
    open.run(generation, client).catch(reject);
  });
}

interface Settle {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** A chunk of which not everything is written. */
interface OpenChunk {
  readonly choice: number;
  readonly output: RequestOutput;
  readonly pieces: Iterator<string, void>;
}

class StreamSink implements GenerationSink {
  generation: Generation | null = null;
  private stream: SseStream | null = null;
  private blocked = false;
  private openChunk: OpenChunk | null = null;
  /** What ended the generation while a chunk was open: its rest goes first. */
  private failure: Error | null = null;
  private numFinished = 0;
  /** Outputs that wait for the socket, by choice. */
  private pending = new Map<number, RequestOutput[]>();
  /** Credit of what is written but not taken, by choice. */
  private owed = new Map<number, number>();
  private readonly context: HttpContext;
  private readonly reply: FastifyReply;
  private readonly format: StreamFormat;
  private readonly settle: Settle;

  constructor(context: HttpContext, reply: FastifyReply, format: StreamFormat, settle: Settle) {
    this.context = context;
    this.reply = reply;
    this.format = format;
    this.settle = settle;
  }

  output(choice: number, output: RequestOutput): void {
    if (this.stream === null) this.begin();
    if (this.isBusy()) {
      const waiting = this.pending.get(choice);
      if (waiting === undefined) this.pending.set(choice, [output]);
      else waiting.push(output);
    } else this.write(choice, output);
  }

  failed(error: Error): void {
    if (this.stream === null) {
      this.settle.reject(error);
      return;
    }
    this.pending.clear();
    // A socket that is full would only keep the last words.
    if (error instanceof ClientGone || this.blocked) this.stream.destroy();
    // Half a chunk would take them for its own.
    else if (this.openChunk !== null) this.failure = error;
    else this.sayFailure(error);
    this.settle.resolve();
  }

  private sayFailure(error: Error): void {
    this.stream?.fail(JSON.stringify(errorBody(toRequestError(error))));
  }

  private isBusy(): boolean {
    return this.blocked || this.openChunk !== null;
  }

  private begin(): void {
    const handlers = {
      drained: () => this.drained(),
      stalled: () => {
        this.generation?.fail(new ClientGone());
        this.stream?.destroy();
      },
    };
    this.stream = new SseStream(this.reply, handlers, this.context.config.timeouts.stallMs);
    this.send(this.format.begin());
  }

  private write(choice: number, output: RequestOutput): void {
    const said = this.format.delta(choice, output);
    if (typeof said === 'string') {
      this.send(said);
      this.written(choice, output);
    } else {
      this.openChunk = { choice, output, pieces: joinParts(said) };
      this.writePieces(this.openChunk);
    }
  }

  /** A piece a turn, and none while the socket is full. */
  private writePieces({ choice, output, pieces }: OpenChunk): void {
    for (let next = pieces.next(); !next.done; next = pieces.next()) {
      this.send(next.value);
      if (next.value.length < pieceLength) continue;
      if (!this.blocked) setImmediate(() => this.goOn());
      return;
    }
    this.openChunk = null;
    this.written(choice, output);
  }

  private written(choice: number, output: RequestOutput): void {
    const bytes = output.creditBytes;
    if (this.blocked) this.owed.set(choice, (this.owed.get(choice) ?? 0) + bytes);
    else this.generation?.consumed(choice, bytes);
    if (output.finishReason !== 'none' && ++this.numFinished === this.generation?.numChoices) {
      this.send(this.format.end());
      this.send(done);
      this.stream?.end();
      this.settle.resolve();
    }
  }

  private send(bytes: string): void {
    if (bytes !== '' && this.stream?.write(bytes) === false) this.blocked = true;
  }

  private drained(): void {
    this.blocked = false;
    for (const [choice, bytes] of this.owed) this.generation?.consumed(choice, bytes);
    this.owed.clear();
    // A socket that takes all at once drains in the same turn.
    if (this.openChunk === null) this.goOn();
    else setImmediate(() => this.goOn());
  }

  private goOn(): void {
    if (this.openChunk !== null) this.writePieces(this.openChunk);
    if (this.isBusy()) return;
    if (this.failure !== null) {
      this.sayFailure(this.failure);
      return;
    }
    const waiting = this.pending;
    this.pending = new Map();
    for (const [choice, outputs] of waiting)
      if (this.isBusy()) this.pending.set(choice, outputs);
      else this.write(choice, mergeOutputs(outputs));
  }
}
