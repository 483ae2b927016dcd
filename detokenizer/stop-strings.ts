// Finds stop strings in a stream of bytes. Each string runs its own Knuth-Morris-Pratt automaton,
// so a byte costs the same however the strings repeat themselves; the state says both that a string
// is complete and how much of the text's end could still become one.

export class StopStrings {
  private readonly strings: readonly Uint8Array[];
  /** Per string: length of the longest border of each prefix. */
  private readonly borders: readonly Uint16Array[];
  /** Per string: how many of its bytes the text ends with. */
  private readonly matched: Uint16Array;
  /** Which string the last scan found. */
  private found = -1;

  constructor(strings: readonly string[]) {
    this.strings = strings.map((text) => Buffer.from(text, 'utf8'));
    this.borders = this.strings.map(bordersOf);
    this.matched = new Uint16Array(strings.length);
  }

  /**
   * Takes text[from .. to). Returns the offset after the first completed string, -1 when there is
   * none (or when it may not stop the text yet). Of strings that end together the first listed wins.
   */
  scan(text: Uint8Array, from: number, to: number, mayStop: boolean): number {
    const { strings, matched } = this;
    for (let i = from; i < to; i++) {
      const byte = text[i]!;
      let found = -1;
      for (let s = 0; s < strings.length; s++) {
        if (strings[s]!.length === 0 || this.advance(s, byte) < strings[s]!.length) continue;
        if (found < 0) found = s;
        matched[s] = this.borders[s]!.at(-1)!;
      }
      if (found >= 0 && mayStop) {
        this.found = found;
        return i + 1;
      }
    }
    return -1;
  }

  /** Index and byte length of the string that the last successful scan found. */
  get foundIndex(): number {
    return this.found;
  }

  get foundLength(): number {
    return this.strings[this.found]!.length;
  }

  /** Bytes at the text's end that may be the beginning of a stop string. */
  get heldBack(): number {
    let most = 0;
    for (let s = 0; s < this.matched.length; s++) most = Math.max(most, this.matched[s]!);
    return most;
  }

  private advance(s: number, byte: number): number {
    const string = this.strings[s]!;
    const borders = this.borders[s]!;
    let length = this.matched[s]!;
    while (length > 0 && string[length] !== byte) length = borders[length - 1]!;
    if (string[length] === byte) length++;
    this.matched[s] = length;
    return length;
  }
}

function bordersOf(string: Uint8Array): Uint16Array {
  const borders = new Uint16Array(string.length);
  for (let i = 1, length = 0; i < string.length; i++) {
    while (length > 0 && string[i] !== string[length]) length = borders[length - 1]!;
    if (string[i] === string[length]) length++;
    borders[i] = length;
  }
  return borders;
}
