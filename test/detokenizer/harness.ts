// A Detokenizer with a clock that the test turns, and ears for what it says.
import type { TokenBytes } from '../../common/text/token-bytes.ts';
import {
  finishReasons,
  type FinishReason,
  type NewTextRequest,
} from '../../common/wire/messages.ts';
import type { ErrorInfo } from '../../common/errors.ts';
import { defaultReaderLimits } from '../../common/limits.ts';
import { decodeMessage, encodeMessage } from '../../common/wire/codec.ts';
import { checkColumns } from '../../common/wire/columns.ts';
import { textOutputsColumns, type TextOutputs } from '../../common/wire/messages.ts';
import { Detokenizer } from '../../detokenizer/detokenizer.ts';
import { tokenOutputs, type Row } from './support.ts';

/** One row of a TextOutputs message, as its reader sees it. */
export interface TextRow {
  readonly peer: string;
  readonly requestId: number;
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly finish: FinishReason;
  readonly stopTokenId: number;
  readonly stopStringIndex: number;
  readonly numOutputTokens: number;
  readonly error: ErrorInfo | null;
  readonly columns: TextOutputs['columns'];
}

export class Harness {
  readonly rows: TextRow[] = [];
  readonly stops: { frontendId: number; requestId: number; numOutputTokens: number }[] = [];
  readonly dropped: number[] = [];
  readonly detokenizer: Detokenizer;
  nowMs = 0;
  numMessages = 0;
  private step = 0;

  constructor(table: TokenBytes, readers = defaultReaderLimits) {
    const about = { table, generation: 7, readers, now: () => this.nowMs };
    this.detokenizer = new Detokenizer(about, {
      // Over the codec, as in life: columns of a message are good for the moment only.
      textOutputs: (peer, message) =>
        this.hear(peer, decodeMessage(encodeMessage(message)) as unknown as TextOutputs),
      stopRequest: ({ columns }) =>
        columns.requestId.forEach((requestId, i) =>
          this.stops.push({
            frontendId: columns.frontendId[i]!,
            requestId,
            numOutputTokens: columns.numOutputTokens[i]!,
          }),
        ),
      dropFrontend: (_, frontendId) => this.dropped.push(frontendId),
    });
  }

  join(frontendId: number, creditBytes: number | null = 1 << 20): void {
    this.detokenizer.frontendJoined(frontendId, `key ${frontendId}`);
    if (creditBytes !== null) this.attach(frontendId, creditBytes);
  }

  attach(frontendId: number, creditBytes: number): void {
    this.detokenizer.attach(frontendId, `peer ${frontendId}`, creditBytes);
  }

  tokens(news: readonly NewTextRequest[], rows: readonly Row[]): void {
    this.detokenizer.tokenOutputs(tokenOutputs(++this.step, news, rows));
    this.detokenizer.checkIntegrity();
  }

  credit(frontendId: number, bytes: number, requests: Readonly<Record<number, number>> = {}): void {
    this.detokenizer.credit(
      `peer ${frontendId}`,
      bytes,
      Uint32Array.from(Object.keys(requests), Number),
      Uint32Array.from(Object.values(requests)),
    );
    this.detokenizer.checkIntegrity();
  }

  wait(ms: number): void {
    this.nowMs += ms;
    this.detokenizer.tick();
    this.detokenizer.checkIntegrity();
  }

  /** Rows heard since the last call. */
  take(): TextRow[] {
    return this.rows.splice(0);
  }

  private hear(peer: string, message: TextOutputs): void {
    this.numMessages++;
    const c = checkColumns(message.columns, textOutputsColumns);
    c.requestId.forEach((requestId, row) =>
      this.rows.push({
        peer,
        requestId,
        text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
          c.text.slice(c.textStart[row], c.textStart[row + 1]),
        ),
        tokenIds: [...c.tokenIds.subarray(c.tokenStart[row], c.tokenStart[row + 1])],
        finish: finishReasons[c.finishReason[row]!]!,
        stopTokenId: c.stopTokenId[row]!,
        stopStringIndex: c.stopStringIndex[row]!,
        numOutputTokens: c.numOutputTokens[row]!,
        error: message.errors.find((e) => e.row === row)?.error ?? null,
        columns: c,
      }),
    );
  }
}
