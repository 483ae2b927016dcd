// One request's way from tokens to text: streaming decode, stop strings, and what has not been sent
// yet, in columns. Knows nothing of frontends, credit or sockets. (spacesBetweenSpecialTokens changes
// nothing: no decoder that token-bytes.ts takes puts a space between tokens.)
import { GrowableColumn } from '../common/growable-column.ts';
import { bytesOf, type TokenBytes } from '../common/text/token-bytes.ts';
import { Utf8Decoder } from '../common/text/utf8-decoder.ts';
import type { ErrorInfo } from '../common/errors.ts';
import { finishReasons, type NewTextRequest } from '../common/wire/messages.ts';
import { LogprobColumns } from './logprob-columns.ts';
import { StopStrings } from './stop-strings.ts';

export const finishIndex = {
  none: finishReasons.indexOf('none'),
  stop: finishReasons.indexOf('stop'),
  length: finishReasons.indexOf('length'),
  abort: finishReasons.indexOf('abort'),
  error: finishReasons.indexOf('error'),
} as const;

export class RequestText {
  readonly info: NewTextRequest;
  /** Decoded and not sent; whole characters only. */
  readonly text = new GrowableColumn(Uint8Array, 64);
  readonly tokenIds = new GrowableColumn(Int32Array, 0);
  readonly logprobs = new LogprobColumns();
  readonly promptPositions = new GrowableColumn(Int32Array, 0);
  readonly promptLogprobs = new LogprobColumns();
  numOutputTokens = 0;
  numCachedTokens = 0;
  /** Tokens that came since the last row was sent. */
  numUnsentTokens = 0;
  numSentRows = 0;
  /** Index into finishReasons; not 0: only the terminal row is still to be sent. */
  finish = finishIndex.none;
  stopTokenId = -1;
  stopStringIndex = -1;
  error: ErrorInfo | null = null;
  /** Bytes that the frontend still takes; below 0 after a row that was larger than the rest. */
  creditBytes: number;
  /** Since when a row waits for credit (ms on the detokenizer's clock); null = none does. */
  stalledSince: number | null = null;

  private readonly table: TokenBytes;
  private readonly utf8 = new Utf8Decoder();
  private readonly stops: StopStrings | null;
  /** SentencePiece: nothing was decoded yet, so a first space is dropped. */
  private atTextStart: boolean;

  constructor(info: NewTextRequest, table: TokenBytes) {
    this.info = info;
    this.table = table;
    this.creditBytes = info.text.creditBytes;
    this.stops = info.text.stop.length > 0 ? new StopStrings(info.text.stop) : null;
    this.atTextStart = table.stripFirstSpace;
    for (const id of info.lastPromptIds) {
      if (this.isSkipped(id)) continue;
      const bytes = bytesOf(table, id);
      if (bytes.length > 0) this.atTextStart = false;
      this.utf8.prime(bytes, this.text);
    }
    this.text.clear();
  }

  /** Ids ride beside the text. */
  get keepsTokenIds(): boolean {
    const { returnTokenIds, detokenize } = this.info.text;
    return returnTokenIds || !detokenize || this.info.logprobs !== null;
  }

  /**
   * Takes one token. isStopToken: it ended the request and has no text. Returns true when it
   * completed a stop string: the text is cut, the request finished, and later tokens are not its own.
   */
  addToken(id: number, isStopToken: boolean): boolean {
    this.numOutputTokens++;
    this.numUnsentTokens++;
    if (this.keepsTokenIds) this.tokenIds.push(id);
    if (!this.info.text.detokenize || isStopToken || this.isSkipped(id)) return false;
    const before = this.text.length;
    const bytes = bytesOf(this.table, id);
    if (this.atTextStart && bytes.length > 0) {
      this.atTextStart = false;
      this.utf8.write(bytes[0] === 0x20 ? bytes.subarray(1) : bytes, this.text);
    } else this.utf8.write(bytes, this.text);
    return this.checkStop(before);
  }

  /** The engine ended the request. A stop string on the last token wins over its reason. */
  end(finish: number, stopTokenId: number, error: ErrorInfo | null): void {
    const before = this.text.length;
    this.utf8.flush(this.text);
    if (this.checkStop(before)) return;
    this.finish = finish;
    this.stopTokenId = stopTokenId;
    this.error = error;
  }

  /** Ends with an error and forgets what was not sent. */
  fail(error: ErrorInfo): void {
    this.finish = finishIndex.error;
    this.stopTokenId = -1;
    this.stopStringIndex = -1;
    this.error = error;
    this.dropUnsent();
  }

  dropUnsent(): void {
    this.text.release();
    this.clearSent(0);
  }

  /** Text bytes that no stop string can take back. */
  get numSendableBytes(): number {
    if (this.stops === null || this.finish !== 0 || this.info.text.includeStopStrInOutput)
      return this.text.length;
    return this.text.length - this.stops.heldBack;
  }

  /** What a row would cost that is sent now: text, ids and logprobs. */
  get rowBytes(): number {
    return this.numSendableBytes + this.numIdBytes;
  }

  /** The same with text that is held back. */
  get numPendingBytes(): number {
    return this.text.length + this.numIdBytes;
  }

  private get numIdBytes(): number {
    const { tokenIds, logprobs, promptLogprobs } = this;
    return 4 * tokenIds.length + logprobs.byteLength + promptLogprobs.byteLength;
  }

  /** The first numTextBytes of text and all of the rest were sent. */
  clearSent(numTextBytes: number): void {
    this.text.shift(numTextBytes);
    this.tokenIds.clear();
    this.logprobs.clear();
    this.promptPositions.clear();
    this.promptLogprobs.clear();
    this.numUnsentTokens = 0;
  }

  private isSkipped(id: number): boolean {
    return this.info.text.skipSpecialTokens && this.table.special[id] === 1;
  }

  /** Looks at text[from ..); not before min_tokens are out. */
  private checkStop(from: number): boolean {
    if (this.stops === null) return false;
    const mayStop = this.numOutputTokens > this.info.minTokens;
    const end = this.stops.scan(this.text.view(), from, this.text.length, mayStop);
    if (end < 0) return false;
    const { includeStopStrInOutput } = this.info.text;
    this.text.truncate(includeStopStrInOutput ? end : end - this.stops.foundLength);
    this.finish = finishIndex.stop;
    this.stopStringIndex = this.stops.foundIndex;
    return true;
  }
}
