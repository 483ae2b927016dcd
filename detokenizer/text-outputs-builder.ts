// Gathers the rows of one TextOutputs message. Its columns keep their memory from one message to
// the next; encoding copies them out.
import type { ErrorInfo } from '../common/errors.ts';
import { GrowableColumn } from '../common/growable-column.ts';
import type { TokenBytes } from '../common/text/token-bytes.ts';
import type { TextOutputs } from '../common/wire/messages.ts';
import type { LogprobColumns } from './logprob-columns.ts';
import type { RequestText } from './request-text.ts';

const u8 = () => new GrowableColumn(Uint8Array);
const i32 = () => new GrowableColumn(Int32Array);
const u32 = () => new GrowableColumn(Uint32Array);
const f32 = () => new GrowableColumn(Float32Array);

export class TextOutputsBuilder {
  private readonly table: TokenBytes;
  private readonly columns = {
    requestId: u32(),
    textStart: u32(),
    text: u8(),
    tokenStart: u32(),
    tokenIds: i32(),
    finishReason: u8(),
    stopTokenId: i32(),
    stopStringIndex: i32(),
    numPromptTokens: i32(),
    numCachedTokens: i32(),
    numOutputTokens: i32(),
    logprobCount: u8(),
    logprobIds: i32(),
    logprobs: f32(),
    logprobRanks: i32(),
    logprobTextStart: u32(),
    logprobText: u8(),
    promptLogprobRow: u32(),
    promptLogprobPosition: i32(),
    promptLogprobCount: u8(),
    promptLogprobIds: i32(),
    promptLogprobs: f32(),
    promptLogprobRanks: i32(),
    promptLogprobTextStart: u32(),
    promptLogprobText: u8(),
  };
  private errors: { row: number; error: ErrorInfo }[] = [];

  constructor(table: TokenBytes) {
    this.table = table;
  }

  get numRows(): number {
    return this.columns.requestId.length;
  }

  /** Adds what the request has to send, with the first numTextBytes of its text. */
  add(request: RequestText, numTextBytes: number): void {
    const c = this.columns;
    const row = this.numRows;
    c.textStart.push(c.text.length);
    c.tokenStart.push(c.tokenIds.length);
    c.requestId.push(request.info.requestId);
    c.text.append(request.text.view(), 0, numTextBytes);
    appendAll(c.tokenIds, request.tokenIds);
    c.finishReason.push(request.finish);
    c.stopTokenId.push(request.stopTokenId);
    c.stopStringIndex.push(request.stopStringIndex);
    c.numPromptTokens.push(request.info.numPromptTokens);
    c.numCachedTokens.push(request.numCachedTokens);
    c.numOutputTokens.push(request.numOutputTokens);
    // One count per id, also where a request wants ids only.
    if (request.logprobs.count.length > 0) appendAll(c.logprobCount, request.logprobs.count);
    else for (let i = 0; i < request.tokenIds.length; i++) c.logprobCount.push(0);
    appendAll(c.logprobIds, request.logprobs.ids);
    appendAll(c.logprobs, request.logprobs.logprobs);
    appendAll(c.logprobRanks, request.logprobs.ranks);
    this.addTexts(request.logprobs, c.logprobTextStart, c.logprobText);
    for (let i = 0; i < request.promptPositions.length; i++) c.promptLogprobRow.push(row);
    appendAll(c.promptLogprobPosition, request.promptPositions);
    appendAll(c.promptLogprobCount, request.promptLogprobs.count);
    appendAll(c.promptLogprobIds, request.promptLogprobs.ids);
    appendAll(c.promptLogprobs, request.promptLogprobs.logprobs);
    appendAll(c.promptLogprobRanks, request.promptLogprobs.ranks);
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
    const columns = Object.fromEntries(
      Object.entries(c).map(([name, column]) => [name, column.view()]),
    ) as unknown as TextOutputs['columns'];
    return { kind: 'textOutputs', step, generation, errors: this.errors, columns };
  }

  reset(): void {
    for (const column of Object.values(this.columns)) column.clear();
    this.errors = [];
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
      if (id >= 0 && id < vocabSize) text.append(bytes, start[id]!, start[id + 1]!);
    }
  }
}

function appendAll<T extends Uint8Array | Int32Array | Uint32Array | Float32Array>(
  to: GrowableColumn<T>,
  from: GrowableColumn<T>,
): void {
  to.append(from.view(), 0, from.length);
}
