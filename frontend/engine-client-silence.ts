// For how long the engine has said nothing though it owed a word: an answer to a request, or the
// status that it gives every 250 ms while it has work.
import type { EngineStatus } from '../common/wire/messages.ts';
import type { OpenRequests } from './engine-client-requests.ts';

export class EngineSilence {
  /** When the engine last said something, or was first asked something after an idle time. */
  private lastHeardMs = 0;
  /** It has work, by its own word. */
  private isBusy = false;
  private readonly isOurs: boolean;
  private readonly requests: Pick<OpenRequests, 'numOpen' | 'numUnanswered'>;

  /** isOurs: the client is a frontend of the engine's own server. */
  constructor(isOurs: boolean, requests: Pick<OpenRequests, 'numOpen' | 'numUnanswered'>) {
    this.isOurs = isOurs;
    this.requests = requests;
  }

  /** A request is about to be sent. */
  asked(): void {
    if (this.requests.numOpen === 0 || !this.isExpected) this.lastHeardMs = performance.now();
  }

  heard(): void {
    this.lastHeardMs = performance.now();
  }

  accepted(): void {
    this.isBusy = true;
  }

  status({ numRunning, numWaiting }: EngineStatus): void {
    this.isBusy = numRunning + numWaiting > 0;
  }

  lost(): void {
    this.isBusy = false;
  }

  /** 0 when it owes none. */
  get owedMs(): number {
    return this.isExpected ? performance.now() - this.lastHeardMs : 0;
  }

  /** While requests are open, whatever it owes. */
  get openMs(): number {
    return this.requests.numOpen > 0 ? performance.now() - this.lastHeardMs : 0;
  }

  private get isExpected(): boolean {
    // Others than our own frontends hear of its work only while they are part of it.
    const isTold = this.isOurs || this.requests.numOpen > 0;
    return (this.isBusy && isTold) || this.requests.numUnanswered > 0;
  }
}
