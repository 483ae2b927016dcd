// The open requests of one frontend: n choices a request, joined by index. Every accepted choice
// gets exactly one terminal output, from the server or, when a peer is gone, from here. Accepted
// and TextOutputs come over different links, so outputs wait until their request was accepted.
import { RequestError } from '../common/errors.ts';
import type {
  Accepted,
  FrontendToDetokenizer,
  FrontendToEngine,
  Rejected,
  TextOutputs,
} from '../common/wire/messages.ts';
import { CreditBook, openAccount, type CreditAccount } from './engine-client-credit.ts';
import { messageLogprobs, lostOutput, rowOutput, rowCosts } from './engine-client-outputs.ts';
import { TokenLog } from './engine-client-token-log.ts';
import type { GenerateRequest, RequestHandle, RequestOutput } from './engine-client-types.ts';

/** One of the n choices of a request; gone from `choices` once it has ended. */
interface Choice {
  readonly group: Group;
  readonly index: number;
  readonly account: CreditAccount;
  readonly tokenLog: TokenLog;
  last: RequestOutput | null;
}

interface Group {
  readonly request: GenerateRequest;
  readonly firstId: number;
  readonly onOutput: (output: RequestOutput) => void;
  /** Outputs that came before the caller had its handle; null once they may flow. */
  waiting: RequestOutput[] | null;
  resolve(handle: OpenRequestHandle): void;
  reject(error: RequestError): void;
  readonly tokenLogs: readonly TokenLog[];
}

export interface OpenRequestHandle extends RequestHandle {
  /** All output ids of a choice so far, asked for or not (a copy). */
  tokenIds(index: number): Int32Array;
}

export interface Links {
  toEngine(message: FrontendToEngine): void;
  toDetokenizer(message: FrontendToDetokenizer): void;
}

const maxRequestId = 0xffffffff;

export class OpenRequests {
  private readonly links: Links;
  private readonly credit: CreditBook;
  private readonly choices = new Map<number, Choice>();
  /** Requests neither accepted nor rejected yet, by their first id; their choices may have ended. */
  private readonly unanswered = new Map<number, Group>();
  private nextId = 1;

  constructor(links: Links, creditBytes: number) {
    this.links = links;
    this.credit = new CreditBook(creditBytes, (message) => links.toDetokenizer(message));
  }

  /** Choices that have not ended. */
  get numOpen(): number {
    return this.choices.size;
  }

  /** Requests to which the engine has said neither yes nor no. */
  get numUnanswered(): number {
    return this.unanswered.size;
  }

  /** Resolves when accepted, rejects with RequestError; outputs begin after it has resolved. */
  add(
    request: GenerateRequest,
    onOutput: (output: RequestOutput) => void,
  ): Promise<OpenRequestHandle> {
    return new Promise((resolve, reject) => {
      const firstId = this.takeIds(request.n);
      const group: Group = {
        request,
        firstId,
        onOutput,
        waiting: [],
        resolve,
        reject,
        tokenLogs: Array.from({ length: request.n }, () => new TokenLog()),
      };
      this.unanswered.set(firstId, group);
      for (let index = 0; index < request.n; index++)
        this.choices.set(firstId + index, {
          group,
          index,
          account: openAccount(firstId + index, request.text.creditBytes),
          tokenLog: group.tokenLogs[index]!,
          last: null,
        });
      this.links.toEngine({
        kind: 'addRequest',
        requestId: firstId,
        n: request.n,
        sampling: request.sampling,
        // Ids are kept here from the start; they reach the caller only if it asked for them.
        text: { ...request.text, returnTokenIds: true },
        priority: request.priority,
        cacheSalt: request.cacheSalt,
        columns: { promptTokenIds: request.promptTokenIds },
      });
    });
  }

  accepted({ requestId }: Accepted): void {
    const group = this.takeUnanswered(requestId);
    if (!group) return;
    group.resolve(this.handle(group));
    // A turn later the caller's `await` has gone on, and holds the handle.
    setImmediate(() => {
      const { waiting } = group;
      group.waiting = null;
      for (const output of waiting ?? []) group.onOutput(output);
    });
  }

  rejected({ requestId, error }: Rejected): void {
    const group = this.takeUnanswered(requestId);
    if (!group) return;
    this.forget(group);
    group.reject(RequestError.from(error));
  }

  textOutputs(message: TextOutputs): void {
    const { columns } = message;
    const logprobs = messageLogprobs(columns);
    const costs = rowCosts(columns);
    for (let row = 0; row < columns.requestId.length; row++) {
      const requestId = columns.requestId[row]!;
      const choice = this.choices.get(requestId);
      if (!choice) {
        // Ended here already; it still took credit.
        this.credit.giveBack(costs[row]!);
        continue;
      }
      const { group, index, account, tokenLog } = choice;
      tokenLog.append(columns.tokenIds, columns.tokenStart[row]!, columns.tokenStart[row + 1]!);
      const output = rowOutput(message, columns, row, index, group.request, logprobs, costs[row]!);
      choice.last = output;
      account.unread += costs[row]!;
      if (output.finishReason !== 'none') this.end(requestId, choice);
      deliver(group, output);
    }
  }

  /** A peer is gone: every open choice ends with `error`, every unanswered request is rejected. */
  endAll(error: RequestError): void {
    const open = [...this.choices];
    const unanswered = new Set(this.unanswered.values());
    this.choices.clear();
    this.unanswered.clear();
    this.credit.reset();
    if (open.length > 0)
      this.links.toEngine({
        kind: 'abort',
        columns: { requestId: Uint32Array.from(open, ([requestId]) => requestId) },
      });
    for (const group of unanswered) group.reject(error);
    for (const [, { group, index, last }] of open)
      if (!unanswered.has(group))
        deliver(group, lostOutput(index, error, last, group.request.promptTokenIds.length));
  }

  private takeUnanswered(requestId: number): Group | undefined {
    const group = this.unanswered.get(requestId);
    this.unanswered.delete(requestId);
    return group;
  }

  private handle(group: Group): OpenRequestHandle {
    return {
      abort: () => this.abort(group),
      consumed: (index, bytes) => {
        const choice = this.choices.get(group.firstId + index);
        if (choice) this.credit.read(choice.account, bytes);
      },
      tokenIds: (index) => group.tokenLogs[index]?.ids() ?? new Int32Array(0),
    };
  }

  private abort(group: Group): void {
    const open: number[] = [];
    for (let id = group.firstId; id < group.firstId + group.request.n; id++)
      if (this.choices.has(id)) open.push(id);
    if (open.length > 0)
      this.links.toEngine({ kind: 'abort', columns: { requestId: Uint32Array.from(open) } });
  }

  private end(requestId: number, choice: Choice): void {
    this.choices.delete(requestId);
    this.credit.close(choice.account);
  }

  private forget(group: Group): void {
    for (let id = group.firstId; id < group.firstId + group.request.n; id++)
      this.choices.delete(id);
  }

  /** n ids in a row, none of them open. */
  private takeIds(n: number): number {
    for (;;) {
      const first = this.nextId + n - 1 > maxRequestId ? 1 : this.nextId;
      this.nextId = first + n;
      let free = true;
      for (let id = first; id < first + n; id++) free &&= !this.choices.has(id);
      if (free) return first;
    }
  }
}

function deliver(group: Group, output: RequestOutput): void {
  if (group.waiting) group.waiting.push(output);
  else group.onOutput(output);
}
