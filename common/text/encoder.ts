// Text to ids by @huggingface/tokenizers: the costly half of a tokenizer, in time to build and in
// memory. Knows which ids frame a text, and how to take a breaker out of text (special-guard.ts).
import { StartError } from '../errors.ts';
import {
  Tokenizer as HfTokenizerClass,
  type HfPreTokenizer,
  type HfTokenizer,
} from './libraries.ts';
import { bad, type TokenizerFiles } from './tokenizer-files.ts';

export class Encoder {
  /** What Hugging Face puts before and after a text with add_special_tokens. */
  readonly prefixIds: readonly number[];
  readonly suffixIds: readonly number[];
  /** The id of what the vocabulary cannot express, -1 when there is none. */
  readonly unknownId: number;
  private readonly hf: HfTokenizer;
  /** The same tokenizer, that takes `breaker` out of each piece after the splitting. */
  private readonly guarded: HfTokenizer;
  private breaker = '';

  /** Throws StartError naming tokenizer.json. */
  constructor(files: TokenizerFiles) {
    const path = `${files.path}/tokenizer.json`;
    try {
      this.hf = new HfTokenizerClass(files.tokenizer, files.config);
      correctPatterns(this.hf.pre_tokenizer);
      this.unknownId = this.hf.model.unk_token_id ?? -1;
      this.guarded = this.makeGuarded();
      [this.prefixIds, this.suffixIds] = this.findFrame(files, path);
    } catch (error) {
      // The library takes a file's word for most of its structure, and fails where it is used.
      if (error instanceof StartError) throw error;
      throw bad(path, `with tokenizer_config.json, not a tokenizer (${(error as Error).message})`);
    }
  }

  idOf(token: string): number | null {
    return this.hf.token_to_id(token) ?? null;
  }

  /** The token as tokenizer.json spells it; '' = the vocabulary has a gap there. */
  tokenOf(id: number): string {
    return this.hf.id_to_token(id) ?? '';
  }

  /** Ids without a frame; '' = no breaker. */
  encode(text: string, breaker: string): number[] {
    this.breaker = breaker;
    const hf = breaker === '' ? this.hf : this.guarded;
    return hf.encode(text, { add_special_tokens: false }).ids;
  }

  private makeGuarded(): HfTokenizer {
    const guarded = Object.create(this.hf) as HfTokenizer;
    const preTokenize = this.hf.pre_tokenizer;
    guarded.pre_tokenizer = (text, options) => {
      const whole = text.replaceAll(this.breaker, '');
      return preTokenize === null ? [whole] : preTokenize(whole, options);
    };
    return guarded;
  }

  /**
   * add_bos_token or add_eos_token in tokenizer_config.json decides where it is there; otherwise
   * the post-processor of tokenizer.json does.
   */
  private findFrame({ config, namedTokens }: TokenizerFiles, path: string): [number[], number[]] {
    if ('add_bos_token' in config || 'add_eos_token' in config) {
      const named = (kind: 'bos' | 'eos') => {
        const token = namedTokens[`${kind}_token`];
        const id = token === undefined ? null : this.idOf(token);
        return config[`add_${kind}_token`] === true && id !== null ? [id] : [];
      };
      return [named('bos'), named('eos')];
    }
    const bare = this.hf.encode('a', { add_special_tokens: false }).ids;
    const framed = this.hf.encode('a', { add_special_tokens: true }).ids;
    for (let at = 0; at + bare.length <= framed.length; at++)
      if (bare.every((id, i) => framed[at + i] === id))
        return [framed.slice(0, at), framed.slice(at + bare.length)];
    throw bad(path, 'its post_processor changes the text');
  }
}

/**
 * Two patterns of the library mean JavaScript's classes where those of Hugging Face mean Unicode's:
 * \s takes U+FEFF for a space and U+0085 for none, and \d knows no digits but ASCII's.
 */
function correctPatterns(step: HfPreTokenizer | null): void {
  step?.tokenizers?.forEach(correctPatterns);
  if (step?.config?.type === 'ByteLevel')
    step.pattern =
      /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
  if (step?.config?.type === 'Digits')
    step.pattern = step.config.individual_digits ? /\P{N}+|\p{N}/gu : /\P{N}+|\p{N}+/gu;
}
