// Keeps special tokens out of text that a user wrote: each occurrence of one is broken up by a
// character that the text does not have, so that no splitter finds it; the tokenizer takes that
// character out again once the splitting is done. Ordinary text passes untouched.
import { RequestError } from '../errors.ts';

export class SpecialGuard {
  private readonly contents: readonly string[];
  private readonly anywhere: RegExp | null;
  private readonly starts: RegExp | null;

  /** `contents` are the special tokens as text; they come from the model folder, not from users. */
  constructor(contents: readonly string[]) {
    this.contents = contents;
    const longestFirst = [...contents].sort((a, b) => b.length - a.length);
    const source = longestFirst.map((c) => c.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')).join('|');
    this.anywhere = source === '' ? null : new RegExp(source, 'gu');
    this.starts = source === '' ? null : new RegExp(`(?=${source})[\\s\\S]`, 'gu');
  }

  /** How many special tokens a splitter finds in `text`. */
  count(text: string): number {
    return this.anywhere === null ? 0 : (text.match(this.anywhere)?.length ?? 0);
  }

  has(text: string): boolean {
    return this.anywhere !== null && text.search(this.anywhere) >= 0;
  }

  /** A character that none of the texts has. Throws RequestError (bad_request) if all are taken. */
  chooseBreaker(texts: readonly string[]): string {
    for (let code = 0xe000; code <= 0xf8ff; code++) {
      const char = String.fromCharCode(code);
      if (
        !texts.some((text) => text.includes(char)) &&
        !this.contents.some((c) => c.includes(char))
      )
        return char;
    }
    throw new RequestError('bad_request', 'the text uses every private-use character');
  }

  /** Puts the breaker after the first character of every occurrence, overlapping ones too. */
  breakUp(text: string, breaker: string): string {
    const broken = this.starts === null ? text : text.replace(this.starts, `$&${breaker}`);
    if (this.has(broken))
      throw new RequestError('bad_request', 'the text has a special token of one character');
    return broken;
  }
}
