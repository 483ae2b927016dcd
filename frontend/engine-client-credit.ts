// Credit towards the detokenizer: what the reader has taken is granted again, in few messages. An
// account is granted again when a quarter of it is free, the total likewise, so that neither can
// run dry while everything was read.
import type { Credit } from '../common/wire/messages.ts';

/** Credit of one choice. */
export interface CreditAccount {
  readonly requestId: number;
  /** What it began with. */
  readonly creditBytes: number;
  /** Bytes received and not yet read. */
  unread: number;
  /** Read and not yet granted again. */
  free: number;
}

export function openAccount(requestId: number, creditBytes: number): CreditAccount {
  return { requestId, creditBytes, unread: 0, free: 0 };
}

export class CreditBook {
  private readonly totalBytes: number;
  private readonly send: (message: Credit) => void;
  private readonly touched = new Set<CreditAccount>();
  private totalFree = 0;
  private flushing = false;

  constructor(totalBytes: number, send: (message: Credit) => void) {
    this.totalBytes = totalBytes;
    this.send = send;
  }

  read(account: CreditAccount, bytes: number): void {
    const taken = Math.min(bytes, account.unread);
    if (!(taken > 0)) return;
    account.unread -= taken;
    account.free += taken;
    this.touched.add(account);
    this.giveBack(taken);
    if (account.free * 4 >= account.creditBytes) this.flushSoon();
  }

  /** The choice has ended: what it did not read counts in all again, its own account is gone. */
  close(account: CreditAccount): void {
    this.touched.delete(account);
    this.giveBack(account.unread);
    account.unread = 0;
  }

  /** Bytes that no reader will take. */
  giveBack(bytes: number): void {
    this.totalFree += bytes;
    if (this.totalFree * 4 >= this.totalBytes) this.flushSoon();
  }

  /** A new detokenizer knows nothing of the old accounts. */
  reset(): void {
    this.touched.clear();
    this.totalFree = 0;
  }

  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    setImmediate(() => this.flush());
  }

  private flush(): void {
    this.flushing = false;
    if (this.totalFree === 0) return;
    const accounts = [...this.touched];
    this.send({
      kind: 'credit',
      bytes: this.totalFree,
      columns: {
        requestId: Uint32Array.from(accounts, (account) => account.requestId),
        bytes: Uint32Array.from(accounts, (account) => account.free),
      },
    });
    for (const account of accounts) account.free = 0;
    this.reset();
  }
}
