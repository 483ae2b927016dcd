// The output ids of one choice so far, in one growing array: what a request is resumed from.

export class TokenLog {
  private tokens = new Int32Array(0);
  private numTokens = 0;

  /** Appends source[from .. to). */
  append(source: Int32Array, from: number, to: number): void {
    const needed = this.numTokens + to - from;
    if (needed > this.tokens.length) {
      const grown = new Int32Array(Math.max(16, needed, this.tokens.length * 2));
      grown.set(this.tokens);
      this.tokens = grown;
    }
    this.tokens.set(source.subarray(from, to), this.numTokens);
    this.numTokens = needed;
  }

  ids(): Int32Array {
    return this.tokens.slice(0, this.numTokens);
  }
}
