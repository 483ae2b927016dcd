// What one frontend is owed: its open requests, and the credit that decides when their text may go.
//
// The rules, so that a frontend that does not read costs bounded memory and nobody else's time:
// - A row costs its bytes of text, ids and logprobs, from two accounts: the frontend's in all and
//   the request's. It goes out while both are above 0 and may overdraw them; grants pay that back. A
//   finalOnly row needs only the frontend's.
// - Without credit deltas merge. More than pendingBytes of one request (finalOnly ones excepted:
//   their own length bounds them), or stallMs without a send, ends it with slow_reader.
// - A terminal row (stop, length) waits for credit like any other, for stallMs at most. Abort and
//   error rows go at once, without what has no credit. A terminal row that costs nothing always
//   goes; a frontend that collects more than maxUnpaidEnds rows of ended requests with its account
//   used up, or has as many requests without being attached, is beyond help: it is dropped whole.
import type { ErrorInfo } from '../common/errors.ts';
import type { ReaderLimits } from '../common/limits.ts';
import type { PeerId } from '../common/wire/transport.ts';
import { finishIndex, type RequestText } from './request-text.ts';
import type { TextOutputsBuilder } from './text-outputs-builder.ts';

/** What no flag raises: no honest frontend comes near. */
export const limits = {
  maxUnpaidEnds: 4096,
  /** More than this is never on its way to a frontend, whatever it grants. */
  maxCreditBytes: 64 * 1024 * 1024,
} as const;

const tooLarge: ErrorInfo = {
  code: 'bad_request',
  message: 'the logprobs do not fit one message: ask for fewer, for fewer tokens, or stream',
  param: 'logprobs',
};

export class FrontendOutbox {
  readonly frontendId: number;
  readonly attachKey: string;
  /** The peer that attached; null before, and after it disconnected. */
  peer: PeerId | null = null;
  readonly requests = new Map<number, RequestText>();
  private readonly readers: ReaderLimits;
  private creditBytes = 0;
  private numUnpaidEnds = 0;

  constructor(frontendId: number, attachKey: string, readers: ReaderLimits) {
    this.readers = readers;
    this.frontendId = frontendId;
    this.attachKey = attachKey;
  }

  attach(peer: PeerId, creditBytes: number): void {
    this.peer = peer;
    this.creditBytes = Math.min(creditBytes, limits.maxCreditBytes);
    this.numUnpaidEnds = 0;
  }

  detach(): void {
    this.peer = null;
    this.creditBytes = 0;
  }

  grant(bytes: number): void {
    this.creditBytes = Math.min(this.creditBytes + bytes, limits.maxCreditBytes);
    this.numUnpaidEnds = 0;
  }

  grantRequest(requestId: number, bytes: number): void {
    const request = this.requests.get(requestId);
    if (!request) return;
    request.creditBytes = Math.min(request.creditBytes + bytes, limits.maxCreditBytes);
  }

  /** True when the frontend has let too much pile up and must be dropped. */
  get isHopeless(): boolean {
    const numWaiting = this.peer === null ? this.requests.size : 0;
    return Math.max(numWaiting, this.numUnpaidEnds) > limits.maxUnpaidEnds;
  }

  /**
   * Moves what may go into `out`. Returns the error when the request has just been ended with one,
   * slow_reader mostly (its terminal row is in `out`, or waits for the Attach).
   */
  flush(request: RequestText, out: TextOutputsBuilder, now: number): ErrorInfo | null {
    let slow: ErrorInfo | null = null;
    const isGone = this.requests.get(request.info.requestId) !== request;
    if (isGone || !this.hasRow(request)) return null;
    if (!this.mayGo(request)) {
      request.stalledSince ??= now;
      slow = this.judgeStall(request, now);
      const ended = request.finish === finishIndex.abort || request.finish === finishIndex.error;
      if (ended) request.dropUnsent();
      if (!this.mayGo(request)) return slow;
    }
    if (out.isTooLarge(request)) {
      slow = tooLarge;
      request.fail(tooLarge);
    }
    const numTextBytes = request.numSendableBytes;
    const cost = request.rowBytes;
    out.add(request, numTextBytes);
    request.clearSent(numTextBytes);
    request.numSentRows++;
    request.stalledSince = null;
    request.creditBytes -= cost;
    this.creditBytes -= cost;
    if (request.finish !== 0) {
      this.requests.delete(request.info.requestId);
      if (this.creditBytes <= 0) this.numUnpaidEnds++;
    }
    return slow;
  }

  /** Something is to be sent, credit aside. */
  private hasRow(request: RequestText): boolean {
    if (request.finish !== 0) return true;
    const { finalOnly, streamInterval } = request.info.text;
    if (finalOnly || request.numUnsentTokens === 0) return false;
    if (request.numSentRows > 0 && request.numUnsentTokens < streamInterval) return false;
    return (
      request.numSendableBytes > 0 ||
      request.tokenIds.length > 0 ||
      request.promptPositions.length > 0
    );
  }

  private mayGo(request: RequestText): boolean {
    if (this.peer === null) return false;
    // Only an end can cost nothing, and nobody is kept waiting for that.
    if (request.rowBytes === 0) return true;
    if (this.creditBytes <= 0) return false;
    return request.creditBytes > 0 || request.info.text.finalOnly;
  }

  private judgeStall(request: RequestText, now: number): ErrorInfo | null {
    if (request.finish === finishIndex.abort || request.finish === finishIndex.error) return null;
    const tooMuch =
      !request.info.text.finalOnly && request.numPendingBytes > this.readers.pendingBytes;
    const tooLong = now - request.stalledSince! >= this.readers.stallMs;
    if (!tooMuch && !tooLong) return null;
    const error: ErrorInfo = {
      code: 'slow_reader',
      message: tooMuch
        ? `the reader left more than ${this.readers.pendingBytes} bytes unread`
        : `the reader took nothing for ${this.readers.stallMs / 1000} s`,
    };
    request.fail(error);
    return error;
  }
}
