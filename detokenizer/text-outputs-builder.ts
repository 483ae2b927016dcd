// Gathers the rows of one TextOutputs message. Its columns keep their memory from one message to
// the next; encoding copies them out.
import type { ErrorInfo } from '../common/errors.ts';
import type { GrowableColumn } from '../common/growable-column.ts';
import type { TokenBytes } from '../common/text/token-bytes.ts';
import { clearColumns, makeGrowing, viewColumns } from '../common/wire/growing-columns.ts';
import { textOutputsColumns, type TextOutputs } from '../common/wire/messages.ts';
import type { LogprobColumns } from './logprob-columns.ts';
import type { RequestText } from './request-text.ts';

/** A message is sent when it holds so much; a row larger than the second does not go out at all. */
const fullBytes = 64 * 1024 * 1024;
const maxRowBytes = 160 * 1024 * 1024;
/** Rows with fewer entries of logprobs are not measured. */
const manyEntries = 2 ** 20;

export class TextOutputsBuilder {
  private readonly table: TokenBytes;
  private readonly columns = makeGrowing(textOutputsColumns);
  private errors: { row: number; error: ErrorInfo }[] = [];

  constructor(table: TokenBytes) {
    this.table = table;
  }

  get numRows(): number {
    return this.columns.requestId.length;
  }

  /** It should go out before more is added. */
  get isFull(): boolean {
    const c = this.columns;
    const numEntries = c.logprobIds.length + c.promptLogprobIds.length;
    const numBytes = c.text.length + c.logprobText.length + c.promptLogprobText.length;
    return numBytes + 16 * numEntries + 8 * c.tokenIds.length > fullBytes;
  }

  /** No message could carry it beside others. */
  isTooLarge({ logprobs, promptLogprobs }: RequestText): boolean {
    const numEntries = logprobs.ids.length + promptLogprobs.ids.length;
    if (numEntries < manyEntries) return false;
    const numBytes = this.textBytes(logprobs) + this.textBytes(promptLogprobs);
    return 16 * numEntries + numBytes > maxRowBytes;
  }

  /** Adds what the request has to send, with the first numTextBytes of its text. */
  add(request: RequestText, numTextBytes: number): void {
    const c = this.columns;
    const row = this.numRows;
    c.textStart.push(c.text.length);
    c.tokenStart.push(c.tokenIds.length);
    c.requestId.push(request.info.requestId);
    c.text.appendFrom(request.text, numTextBytes);
    c.tokenIds.appendFrom(request.tokenIds);
    c.finishReason.push(request.finish);
    c.stopTokenId.push(request.stopTokenId);
    c.stopStringIndex.push(request.stopStringIndex);
    c.numPromptTokens.push(request.info.numPromptTokens);
    c.numCachedTokens.push(request.numCachedTokens);
    c.numOutputTokens.push(request.numOutputTokens);
    // One count per id, also where a request wants ids only.
    if (request.logprobs.count.length > 0) c.logprobCount.appendFrom(request.logprobs.count);
    else for (let i = 0; i < request.tokenIds.length; i++) c.logprobCount.push(0);
    c.logprobIds.appendFrom(request.logprobs.ids);
    c.logprobs.appendFrom(request.logprobs.logprobs);
    c.logprobRanks.appendFrom(request.logprobs.ranks);
    this.addTexts(request.logprobs, c.logprobTextStart, c.logprobText);
    for (let i = 0; i < request.promptPositions.length; i++) c.promptLogprobRow.push(row);
    c.promptLogprobPosition.appendFrom(request.promptPositions);
    c.promptLogprobCount.appendFrom(request.promptLogprobs.count);
    c.promptLogprobIds.appendFrom(request.promptLogprobs.ids);
    c.promptLogprobs.appendFrom(request.promptLogprobs.logprobs);
    c.promptLogprobRanks.appendFrom(request.promptLogprobs.ranks);
    this.addTexts(request.promptLogprobs, c.promptLogprobTextStart, c.promptLogprobText);
    if (request.error) this.errors.push({ row, error: request.error });
  }

  /** The message; its columns are good until reset(). */
  build(step: number, generation: number): TextOutputs {
    const c = this.columns;
    c.textStart.push(c.text.length);
    c.tokenStart.push(c.tokenIds.length);
    c.logprobTextStart.push(c.logprobText.length);
    c.promptLogprobTextStart.push(c.promptLogprobText.length);
    return {
      kind: 'textOutputs',
      step,
      generation,
      errors: this.errors,
      columns: viewColumns(c),
    };
  }

  reset(): void {
    clearColumns(this.columns);
    this.errors = [];
  }

  private textBytes({ ids }: LogprobColumns): number {
    const { vocabSize, start } = this.table;
    let numBytes = 0;
    for (let i = 0; i < ids.length; i++) {
      const id = ids.at(i);
      if (id >= 0 && id < vocabSize) numBytes += start[id + 1]! - start[id]!;
    }
    return numBytes;
  }

  private addTexts(
    { ids }: LogprobColumns,
    starts: GrowableColumn<Uint32Array>,
    text: GrowableColumn<Uint8Array>,
  ): void {
    const { vocabSize, start, bytes } = this.table;
    for (let i = 0; i < ids.length; i++) {
      const id = ids.at(i);
      starts.push(text.length);
      if (id >= 0 && id < vocabSize) text.append(bytes, start[id], start[id + 1]);
    }
  }
}
