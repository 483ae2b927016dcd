// Calls that are answered by number: utilities of the engine, text services of the detokenizer.
import { RequestError, type ErrorInfo } from '../common/errors.ts';

interface Waiting<Reply> {
  resolve(reply: Reply): void;
  reject(error: RequestError): void;
}

export class Calls<Reply extends { readonly callId: number; readonly error: ErrorInfo | null }> {
  private readonly waiting = new Map<number, Waiting<Reply>>();
  private nextId = 1;

  /** `send` gets the number under which the reply will come. */
  call(send: (callId: number) => void): Promise<Reply> {
    const callId = this.nextId;
    this.nextId = callId >= 0xffffffff ? 1 : callId + 1;
    return new Promise((resolve, reject) => {
      this.waiting.set(callId, { resolve, reject });
      send(callId);
    });
  }

  settle(reply: Reply): void {
    const waiting = this.waiting.get(reply.callId);
    this.waiting.delete(reply.callId);
    if (reply.error) waiting?.reject(RequestError.from(reply.error));
    else waiting?.resolve(reply);
  }

  failAll(error: RequestError): void {
    const all = [...this.waiting.values()];
    this.waiting.clear();
    for (const waiting of all) waiting.reject(error);
  }
}
