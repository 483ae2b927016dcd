// Waiting requests in the order in which they are to run: by priority (lower is sooner), then by
// arrival, so that a preempted request is back at its place at once. One intrusive list for each
// priority in use; under FCFS there is one.
import type { Request } from './request.ts';

interface Level {
  readonly priority: number;
  head: Request | null;
  tail: Request | null;
}

/** Negative if `a` is to run before `b`. */
export function compareRequests(a: Request, b: Request): number {
  return a.priority - b.priority || a.arrival - b.arrival;
}

export class RequestQueue {
  length = 0;
  /** Prompt tokens of all waiting requests. */
  numPromptTokens = 0;
  /** Ascending by priority; none is empty. */
  private readonly levels: Level[] = [];

  get first(): Request | null {
    return this.levels[0]?.head ?? null;
  }

  /** The request after `request`, which is in the queue. */
  after(request: Request): Request | null {
    if (request.nextWaiting) return request.nextWaiting;
    return this.levels[this.find(request.priority) + 1]?.head ?? null;
  }

  add(request: Request): void {
    const at = this.find(request.priority);
    let level = this.levels[at];
    if (level?.priority !== request.priority) {
      level = { priority: request.priority, head: null, tail: null };
      this.levels.splice(at, 0, level);
    }
    // A new one is the last to have arrived, a preempted one is among the first.
    let after: Request | null = null;
    if (level.tail && level.tail.arrival > request.arrival) {
      after = level.head;
      while (after && after.arrival < request.arrival) after = after.nextWaiting;
    }
    const before = after ? after.prevWaiting : level.tail;
    request.prevWaiting = before;
    request.nextWaiting = after;
    if (before) before.nextWaiting = request;
    else level.head = request;
    if (after) after.prevWaiting = request;
    else level.tail = request;
    this.length++;
    this.numPromptTokens += request.numPromptTokens;
  }

  remove(request: Request): void {
    const at = this.find(request.priority);
    const level = this.levels[at]!;
    const { prevWaiting: before, nextWaiting: after } = request;
    if (before) before.nextWaiting = after;
    else level.head = after;
    if (after) after.prevWaiting = before;
    else level.tail = before;
    request.prevWaiting = null;
    request.nextWaiting = null;
    if (!level.head) this.levels.splice(at, 1);
    this.length--;
    this.numPromptTokens -= request.numPromptTokens;
  }

  *[Symbol.iterator](): Generator<Request> {
    for (let request = this.first; request; request = this.after(request)) yield request;
  }

  checkIntegrity(): void {
    let last: Request | null = null;
    let length = 0;
    for (const level of this.levels) {
      if (!level.head) throw new Error(`level ${level.priority} is empty`);
      let before: Request | null = null;
      for (let request: Request | null = level.head; request; request = request.nextWaiting) {
        if (request.prevWaiting !== before) throw new Error('a waiting request has a wrong prev');
        if (request.state !== 'waiting') throw new Error(`a ${request.state} request is queued`);
        if (last && compareRequests(last, request) >= 0) throw new Error('queue out of order');
        last = before = request;
        length++;
      }
      if (level.tail !== before) throw new Error('a level has a wrong tail');
    }
    if (length !== this.length) throw new Error('length of the queue is wrong');
  }

  /** Index of the level with this priority, or where it would be. */
  private find(priority: number): number {
    let low = 0;
    let high = this.levels.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.levels[middle]!.priority < priority) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
