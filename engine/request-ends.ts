// How a request leaves the engine: with a terminal row or without one, always out of the scheduler,
// the table and the timeline together. What its tokens decide is elsewhere (update.ts).
import type { ErrorInfo } from '../common/errors.ts';
import type { DetokenizerOutbox } from './detokenizer-outbox.ts';
import type { Request } from './request.ts';
import type { RequestTable } from './request-table.ts';
import type { Scheduler } from './scheduler.ts';
import type { StatusReporter } from './status.ts';

export interface RequestEndsParts {
  readonly scheduler: Scheduler;
  readonly requests: RequestTable;
  readonly outbox: DetokenizerOutbox;
  readonly status: StatusReporter;
  /** Told last. */
  ended(request: Request): void;
}

export class RequestEnds {
  private readonly parts: RequestEndsParts;

  constructor(parts: RequestEndsParts) {
    this.parts = parts;
  }

  fail(request: Request, error: ErrorInfo): void {
    this.parts.outbox.rows.row(request, 'error', error);
    this.drop(request);
  }

  abort(request: Request): void {
    this.parts.outbox.rows.row(request, 'abort');
    this.drop(request);
  }

  /** Without a word: whoever would hear it knows or is gone. */
  drop(request: Request): void {
    this.parts.scheduler.end(request);
    this.forget(request);
  }

  /** It is out of the scheduler and its terminal row is written. */
  forget(request: Request): void {
    this.parts.requests.delete(request);
    this.parts.status.requestEnded();
    this.parts.ended(request);
  }
}
