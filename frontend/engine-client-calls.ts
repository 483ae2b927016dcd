// Calls that are answered by number: utilities of the engine, text services of the detokenizer.
// Those over a bound wait here until others are answered.
import { RequestError, type ErrorInfo } from '../common/errors.ts';

interface Waiting<Reply> {
  resolve(reply: Reply): void;
  reject(error: RequestError): void;
}

export class Calls<Reply extends { readonly callId: number; readonly error: ErrorInfo | null }> {
  private readonly waiting = new Map<number, Waiting<Reply>>();
  /** Sends of calls that wait for others' answers. */
  private readonly held: (() => void)[] = [];
  private readonly maxOpen: number;
  private nextId = 1;

  constructor(maxOpen = Infinity) {
    this.maxOpen = maxOpen;
  }

  /** `send` gets the number under which the reply will come. */
  call(send: (callId: number) => void): Promise<Reply> {
    const callId = this.nextId;
    this.nextId = callId >= 0xffffffff ? 1 : callId + 1;
    return new Promise((resolve, reject) => {
      const isOver = this.waiting.size >= this.maxOpen;
      this.waiting.set(callId, { resolve, reject });
      if (isOver) this.held.push(() => send(callId));
      else send(callId);
    });
  }

  settle(reply: Reply): void {
    const waiting = this.waiting.get(reply.callId);
    if (this.waiting.delete(reply.callId)) this.held.shift()?.();
    if (reply.error) waiting?.reject(RequestError.from(reply.error));
    else waiting?.resolve(reply);
  }

  failAll(error: RequestError): void {
    const all = [...this.waiting.values()];
    this.waiting.clear();
    this.held.length = 0;
    for (const waiting of all) waiting.reject(error);
  }
}
