// Calls that are answered by number: utilities of the engine, text services of the detokenizer.
// Those over a bound wait here until others are answered.
import { RequestError, WireError, type ErrorInfo } from '../common/errors.ts';

interface Waiting<Reply> {
  resolve(reply: Reply): void;
  reject(error: RequestError): void;
}

type Send = (callId: number) => void;

export class Calls<Reply extends { readonly callId: number; readonly error: ErrorInfo | null }> {
  private readonly waiting = new Map<number, Waiting<Reply>>();
  /** Calls that wait for others' answers before they are sent. */
  private readonly held: { readonly callId: number; readonly send: Send }[] = [];
  private readonly maxOpen: number;
  private nextId = 1;

  constructor(maxOpen = Infinity) {
    this.maxOpen = maxOpen;
  }

  /** `send` gets the number under which the reply will come; what it throws rejects this call only. */
  call(send: Send): Promise<Reply> {
    const callId = this.nextId;
    this.nextId = callId >= 0xffffffff ? 1 : callId + 1;
    return new Promise((resolve, reject) => {
      const isOver = this.waiting.size >= this.maxOpen;
      this.waiting.set(callId, { resolve, reject });
      if (isOver) this.held.push({ callId, send });
      else this.start(callId, send);
    });
  }

  settle(reply: Reply): void {
    const waiting = this.waiting.get(reply.callId);
    if (!waiting) return;
    this.waiting.delete(reply.callId);
    if (reply.error) waiting.reject(RequestError.from(reply.error));
    else waiting.resolve(reply);
    // The first that can be sent takes the place.
    while (this.held.length > 0) {
      const { callId, send } = this.held.shift()!;
      if (this.start(callId, send)) return;
    }
  }

  failAll(error: RequestError): void {
    const all = [...this.waiting.values()];
    this.waiting.clear();
    this.held.length = 0;
    for (const waiting of all) waiting.reject(error);
  }

  /** False where the call could not be sent: its promise has been rejected. */
  private start(callId: number, send: Send): boolean {
    try {
      send(callId);
      return true;
    } catch (error) {
      const waiting = this.waiting.get(callId);
      this.waiting.delete(callId);
      waiting?.reject(sendError(error));
      return false;
    }
  }
}

/** What a message cannot hold is the caller's fault: nothing was sent. */
function sendError(error: unknown): RequestError {
  if (error instanceof WireError)
    return new RequestError('bad_request', error.message, error.field);
  return new RequestError('internal', `a call could not be sent: ${String(error)}`);
}
