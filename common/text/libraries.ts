// The parts of @huggingface/tokenizers and @huggingface/jinja that are used here, with types of our
// own: theirs do not resolve under Node's module rules (relative imports without file endings).
import * as jinja from '@huggingface/jinja';
import * as tokenizers from '@huggingface/tokenizers';

export interface HfPreTokenizer {
  /** Splits what lies between added tokens. */
  (text: string, options: unknown): string[];
  /** Of ByteLevel and Digits: what they split by. */
  pattern?: RegExp;
  /** As in tokenizer.json; a sequence has none. */
  readonly config?: { readonly type?: string; readonly individual_digits?: boolean };
  /** Of a sequence. */
  readonly tokenizers?: readonly HfPreTokenizer[];
}

export interface HfTokenizer {
  readonly model: { readonly unk_token_id?: number };
  /** null when the tokenizer has no such step. */
  pre_tokenizer: HfPreTokenizer | null;
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

export interface JinjaEnvironment {
  set(name: string, value: unknown): unknown;
}

export interface JinjaInterpreter {
  run(program: unknown): { readonly value: unknown };
  /** Called for every node of the program. */
  evaluate(statement: unknown, environment: JinjaEnvironment): unknown;
}

interface Libraries {
  readonly Tokenizer: new (tokenizer: object, config: object) => HfTokenizer;
  readonly Template: new (source: string) => { readonly parsed: unknown };
  readonly Environment: new () => JinjaEnvironment;
  readonly Interpreter: new (environment: JinjaEnvironment) => JinjaInterpreter;
}

export const { Tokenizer, Template, Environment, Interpreter } = {
  ...tokenizers,
  ...jinja,
} as unknown as Libraries;
