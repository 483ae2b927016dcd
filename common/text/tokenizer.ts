// The tokenizer of a model folder: text to ids by the encoder, ids to text by the table of token
// bytes. A user's text never becomes a special token unless the caller allows it.
import { textTooLong } from '../context-length.ts';
import { RequestError } from '../errors.ts';
import { GrowableColumn } from '../growable-column.ts';
import { Encoder } from './encoder.ts';
import { SpecialGuard } from './special-guard.ts';
import { buildTokenBytes, bytesOf, longestToken, type TokenBytes } from './token-bytes.ts';
import { readTokenizerFiles, type TokenizerFiles } from './tokenizer-files.ts';
import { Utf8Decoder } from './utf8-decoder.ts';

export interface EncodeOptions {
  /** The model's own frame around a text (BOS, at times EOS), as Hugging Face adds it. */
  readonly addSpecialTokens: boolean;
  /** Special tokens written out in the text become those tokens; false (the default) keeps them text. */
  readonly allowSpecial?: boolean | undefined;
}

export interface DecodeOptions {
  readonly skipSpecialTokens: boolean;
}

export class Tokenizer {
  readonly files: TokenizerFiles;
  readonly table: TokenBytes;
  readonly guard: SpecialGuard;
  private readonly maxCharacters: number;
  private readonly maxModelLen: number;
  private encoder: Encoder | null = null;

  /** Throws StartError naming the file at fault. maxModelLen bounds how long a text may be. */
  static load(path: string, maxModelLen: number): Tokenizer {
    return new Tokenizer(readTokenizerFiles(path), maxModelLen);
  }

  private constructor(files: TokenizerFiles, maxModelLen: number) {
    this.files = files;
    const { tokenizer, addedTokens, path } = files;
    this.table = buildTokenBytes(tokenizer, addedTokens, `${path}/tokenizer.json`);
    this.guard = new SpecialGuard(addedTokens.filter((t) => t.special).map((t) => t.content));
    this.maxModelLen = maxModelLen;
    this.maxCharacters = maxModelLen * longestToken(this.table);
  }

  /**
   * Builds what encoding needs, which is the costly half: a process that only decodes does without.
   * Otherwise the first encode does it. Throws StartError.
   */
  prepare(): Encoder {
    return (this.encoder ??= new Encoder(this.files));
  }

  get vocabSize(): number {
    return this.table.vocabSize;
  }

  idOf(token: string): number | null {
    const added = this.files.addedTokens.find((t) => t.content === token);
    return added?.id ?? this.prepare().idOf(token);
  }

  /** The token as tokenizer.json spells it, such as 'Ġupon'; '' for an id that it does not have. */
  tokenOf(id: number): string {
    return this.prepare().tokenOf(id);
  }

  /**
   * Ids of a text. Throws RequestError: context_length_exceeded, before any work, when the text
   * cannot fit.
   */
  encode(text: string, { addSpecialTokens, allowSpecial = false }: EncodeOptions): Int32Array {
    this.checkLength(text);
    const wellFormed = toWellFormed(text);
    const breaker =
      allowSpecial || !this.guard.has(wellFormed) ? '' : this.guard.chooseBreaker([wellFormed]);
    const ids = this.encodeGuarded(
      breaker === '' ? wellFormed : this.guard.breakUp(wellFormed, breaker),
      breaker,
      allowSpecial,
    );
    return addSpecialTokens ? this.framed(ids) : Int32Array.from(ids);
  }

  /**
   * Ids of a rendered conversation: the template's special tokens count, those that the breaker
   * breaks up do not. '' = nothing was broken up.
   */
  encodeRendered(text: string, breaker: string, addSpecialTokens: boolean): Int32Array {
    this.checkLength(text);
    const ids = this.encodeGuarded(text, breaker, false);
    return addSpecialTokens ? this.framed(ids) : Int32Array.from(ids);
  }

  /** One-shot decoding. Throws RequestError for an id that the vocabulary does not have. */
  decode(tokenIds: ArrayLike<number>, { skipSpecialTokens }: DecodeOptions): string {
    const { table } = this;
    const out = new GrowableColumn(Uint8Array, tokenIds.length * 5);
    const utf8 = new Utf8Decoder();
    for (let i = 0; i < tokenIds.length; i++) {
      const id = tokenIds[i]!;
      if (!(id >= 0 && id < table.vocabSize))
        throw new RequestError(
          'bad_request',
          `token id ${id} is not in the vocabulary of ${table.vocabSize}`,
          'tokens',
        );
      if (!skipSpecialTokens || table.special[id] === 0) utf8.write(bytesOf(table, id), out);
    }
    utf8.flush(out);
    const skip = table.stripFirstSpace && out.length > 0 && out.at(0) === 0x20 ? 1 : 0;
    return Buffer.from(out.view().subarray(skip)).toString('utf8');
  }

  /** Throws RequestError when a text has more characters than maxModelLen tokens can have. */
  checkLength(text: string): void {
    if (text.length <= this.maxCharacters) return;
    throw textTooLong(this.maxModelLen, text.length, this.maxCharacters);
  }

  private framed(ids: readonly number[]): Int32Array {
    const { prefixIds, suffixIds } = this.prepare();
    return Int32Array.from([...prefixIds, ...ids, ...suffixIds]);
  }

  /** Ids without a frame. No more special ids come out than the text spells out (or none at all). */
  private encodeGuarded(text: string, breaker: string, allowSpecial: boolean): number[] {
    if (text === '') return [];
    const encoder = this.prepare();
    const ids = encoder.encode(text, breaker);
    if (allowSpecial) return ids;
    // A normalizer could make a special token out of what was none: refused rather than let through.
    let numSpecial = 0;
    for (const id of ids)
      if (this.table.special[id] === 1 && id !== encoder.unknownId) numSpecial++;
    if (numSpecial > 0 && numSpecial > this.guard.count(text))
      throw new RequestError('bad_request', 'the text turns into a special token');
    return ids;
  }
}

/** Unpaired surrogates become U+FFFD, as UTF-8 has none. */
export function toWellFormed(text: string): string {
  return /\p{Surrogate}/u.test(text) ? Buffer.from(text, 'utf8').toString('utf8') : text;
}
