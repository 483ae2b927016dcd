// Logprobs of successive tokens as the columns in which they came. Objects and texts are made of one
// token or entry when somebody asks for it: a long prompt has millions of entries.
export interface LogprobColumns {
  /** [e] one per entry, all of a token's in a row */
  readonly ids: Int32Array;
  readonly logprobs: Float32Array;
  readonly ranks: Int32Array;
  /** [e + 1] where each entry's bytes begin in `text` */
  readonly textStart: Uint32Array;
  readonly text: Uint8Array;
}

/**
 * Alternatives of one token: entry 0 is the token itself, the rest the best ones, best first, or
 * those that the request named, in its order.
 */
export interface TokenLogprobs {
  readonly ids: Int32Array;
  /** Raw logprobs, natural logarithm. */
  readonly logprobs: Float32Array;
  /** 1 = most likely; 0 = not known, of ids that the request named. */
  readonly ranks: Int32Array;
  /** Bytes of each entry's token; part of a character at times. */
  readonly bytes: readonly Uint8Array[];
}

export class LogprobList implements Iterable<TokenLogprobs> {
  /** Tokens. */
  readonly length: number;
  /** Of a prompt's tokens: the position of the first, which the others follow. Else 0. */
  readonly position: number;
  readonly columns: LogprobColumns;
  /** [length + 1] */
  private readonly starts: Uint32Array;
  private readonly text: Buffer;

  /** `starts`, [length + 1]: where each token's entries begin in the columns. */
  constructor(columns: LogprobColumns, starts: Uint32Array, position = 0) {
    this.length = starts.length - 1;
    this.position = position;
    this.columns = columns;
    this.starts = starts;
    const { buffer, byteOffset, byteLength } = columns.text;
    this.text = Buffer.from(buffer, byteOffset, byteLength);
  }

  /** Lists that follow one another as one. */
  static concat(lists: readonly LogprobList[]): LogprobList | null {
    const [first, ...rest] = lists;
    if (first === undefined || rest.length === 0) return first ?? null;
    const size = (measure: (list: LogprobList) => number) =>
      lists.reduce((sum, list) => sum + measure(list), 0);
    const numEntries = size((list) => list.numEntries);
    const starts = new Uint32Array(size((list) => list.length) + 1);
    const ids = new Int32Array(numEntries);
    const logprobs = new Float32Array(numEntries);
    const ranks = new Int32Array(numEntries);
    const textStart = new Uint32Array(numEntries + 1);
    const text = new Uint8Array(size((list) => list.numTextBytes));
    let [token, entry, byte] = [0, 0, 0];
    for (const list of lists) {
      const [begin, end] = [list.firstEntry(0), list.firstEntry(list.length)];
      const from = list.columns;
      ids.set(from.ids.subarray(begin, end), entry);
      logprobs.set(from.logprobs.subarray(begin, end), entry);
      ranks.set(from.ranks.subarray(begin, end), entry);
      const firstByte = from.textStart[begin]!;
      text.set(from.text.subarray(firstByte, from.textStart[end]), byte);
      for (let i = begin; i < end; i++)
        textStart[entry + i - begin] = from.textStart[i]! - firstByte + byte;
      for (let i = 0; i < list.length; i++) starts[token++] = list.firstEntry(i) - begin + entry;
      entry += end - begin;
      byte += list.numTextBytes;
    }
    starts[token] = entry;
    textStart[entry] = byte;
    return new LogprobList({ ids, logprobs, ranks, textStart, text }, starts, first.position);
  }

  /** Where the token's entries begin in the columns; they end where the next one's begin. */
  firstEntry(token: number): number {
    return this.starts[token]!;
  }

  /** Of an entry; bytes that are no character of their own are shown as U+FFFD. */
  textOf(entry: number): string {
    const { textStart } = this.columns;
    return this.text.toString('utf8', textStart[entry], textStart[entry + 1]);
  }

  bytesOf(entry: number): Uint8Array {
    const { text, textStart } = this.columns;
    return text.subarray(textStart[entry], textStart[entry + 1]);
  }

  /** undefined outside the list. */
  at(token: number): TokenLogprobs | undefined {
    if (!(token >= 0 && token < this.length)) return undefined;
    const [begin, end] = [this.firstEntry(token), this.firstEntry(token + 1)];
    const { ids, logprobs, ranks } = this.columns;
    return {
      ids: ids.subarray(begin, end),
      logprobs: logprobs.subarray(begin, end),
      ranks: ranks.subarray(begin, end),
      bytes: Array.from({ length: end - begin }, (_, i) => this.bytesOf(begin + i)),
    };
  }

  *[Symbol.iterator](): Generator<TokenLogprobs> {
    for (let token = 0; token < this.length; token++) yield this.at(token)!;
  }

  private get numEntries(): number {
    return this.firstEntry(this.length) - this.firstEntry(0);
  }

  private get numTextBytes(): number {
    const { textStart } = this.columns;
    return textStart[this.firstEntry(this.length)]! - textStart[this.firstEntry(0)]!;
  }
}
