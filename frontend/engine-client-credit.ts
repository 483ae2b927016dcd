// Credit towards the detokenizer: what the reader has taken is granted again, in few messages. An
// account is granted again when a quarter of it is free, the total likewise, so that neither can
// run dry while everything was read. The reader counts text; ids go with the text beside them.
import type { Credit } from '../common/wire/messages.ts';

/** Credit of one choice. */
export interface CreditAccount {
  readonly requestId: number;
  /** What it began with. */
  readonly creditBytes: number;
  /** Received and not yet read: what it cost, and the bytes of text in it. */
  unread: number;
  unreadText: number;
  /** Read and not yet granted again. */
  free: number;
}

export function openAccount(requestId: number, creditBytes: number): CreditAccount {
  return { requestId, creditBytes, unread: 0, unreadText: 0, free: 0 };
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

  /** A row has come. One without text, while nothing waits to be read, counts as read. */
  received(account: CreditAccount, bytes: number, textBytes: number): void {
    account.unread += bytes;
    account.unreadText += textBytes;
    if (account.unreadText === 0) this.release(account, account.unread);
  }

  /** The reader has taken so many bytes of text. */
  read(account: CreditAccount, textBytes: number): void {
    if (!(textBytes > 0) || account.unreadText === 0) return;
    const taken = Math.min(textBytes, account.unreadText);
    const share = taken / account.unreadText;
    account.unreadText -= taken;
    this.release(account, Math.floor(account.unread * share));
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

  private release(account: CreditAccount, taken: number): void {
    account.unread -= taken;
    account.free += taken;
    this.touched.add(account);
    this.giveBack(taken);
    if (account.free * 4 >= account.creditBytes) this.flushSoon();
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
