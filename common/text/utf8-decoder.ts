// Bytes of tokens to well-formed UTF-8, a piece at a time: an unfinished character waits for its
// rest, and what can never become one turns into U+FFFD exactly as TextDecoder does it (one for
// each maximal ill-formed part). Output stays bytes: nobody on the token path needs a string.
import type { GrowableColumn } from '../growable-column.ts';

export type ByteSink = GrowableColumn<Uint8Array>;

const replacement = Uint8Array.of(0xef, 0xbf, 0xbd);

export class Utf8Decoder {
  /** The unfinished character: its bytes so far, how many are still to come, and what may be next. */
  private readonly pending = new Uint8Array(4);
  private numPending = 0;
  private numMissing = 0;
  private lower = 0x80;
  private upper = 0xbf;
  /** Every pending byte came from the prompt: should it end badly, that is not this output's text. */
  private onlyContext = false;

  /** Takes the prompt's last bytes: a character that begins there may end in the output. */
  prime(bytes: Uint8Array, scratch: ByteSink): void {
    this.write(bytes, scratch);
    this.onlyContext = this.numPending > 0;
  }

  /** Appends to `out` what `bytes` completes. */
  write(bytes: Uint8Array, out: ByteSink): void {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!;
      if (this.numMissing === 0) {
        this.start(byte, out);
      } else if (byte < this.lower || byte > this.upper) {
        this.giveUp(out);
        this.start(byte, out);
      } else {
        this.onlyContext = false;
        this.pending[this.numPending++] = byte;
        this.lower = 0x80;
        this.upper = 0xbf;
        if (--this.numMissing === 0) {
          out.append(this.pending, 0, this.numPending);
          this.numPending = 0;
        }
      }
    }
  }

  /** The output is over: an unfinished character becomes U+FFFD. */
  flush(out: ByteSink): void {
    if (this.numMissing > 0) this.giveUp(out);
  }

  private giveUp(out: ByteSink): void {
    if (!this.onlyContext) out.append(replacement, 0, 3);
    this.numPending = 0;
    this.numMissing = 0;
    this.lower = 0x80;
    this.upper = 0xbf;
    this.onlyContext = false;
  }

  private start(byte: number, out: ByteSink): void {
    if (byte < 0x80) {
      out.push(byte);
      return;
    }
    if (byte >= 0xc2 && byte <= 0xdf) this.numMissing = 1;
    else if (byte >= 0xe0 && byte <= 0xef) this.numMissing = 2;
    else if (byte >= 0xf0 && byte <= 0xf4) this.numMissing = 3;
    else {
      out.append(replacement, 0, 3);
      return;
    }
    // No overlong forms, surrogates or code points above U+10FFFF.
    if (byte === 0xe0) this.lower = 0xa0;
    else if (byte === 0xed) this.upper = 0x9f;
    else if (byte === 0xf0) this.lower = 0x90;
    else if (byte === 0xf4) this.upper = 0x8f;
    this.pending[0] = byte;
    this.numPending = 1;
  }
}
