// Logprobs in the shapes of the two APIs. A TokenLogprobs has the token itself first and then the
// best ones, among which it may be again.
import type { RequestOutput, TokenLogprobs } from '../engine-client-types.ts';
import { Sliced } from './sliced-json.ts';

/** JSON has no infinity: what is less likely is shown as this (vLLM's floor). */
const floor = -9999;

export interface TokenStyle {
  /** "token_id:123" in place of the text (return_tokens_as_token_ids). */
  readonly asTokenIds: boolean;
  /** Alternatives asked for. */
  readonly numTop: number;
  /** The request named the alternatives: all that there are, in its order. */
  readonly areNamed: boolean;
}

export interface ChatLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: number[];
}

export interface ChatLogprobs {
  readonly content: Sliced<ChatLogprob & { readonly top_logprobs: ChatLogprob[] }>;
}

export function chatLogprobs(output: RequestOutput, style: TokenStyle): ChatLogprobs | null {
  const { logprobs } = output;
  if (logprobs === null) return null;
  const entry = (token: TokenLogprobs, i: number): ChatLogprob => ({
    token: tokenText(token, i, style),
    logprob: clamp(token.logprobs[i]!),
    bytes: [...token.bytes[i]!],
  });
  return {
    content: new Sliced(logprobs.length, (index) => {
      const token = logprobs[index]!;
      const top_logprobs = alternatives(token, style).map((i) => entry(token, i));
      return { ...entry(token, 0), top_logprobs };
    }),
  };
}

type Alternatives = Readonly<Record<string, number>> | null;

export interface CompletionLogprobs {
  readonly text_offset: number[];
  readonly token_logprobs: (number | null)[];
  readonly tokens: string[];
  readonly top_logprobs: Sliced<Alternatives>;
}

/** Appends tokens to the four columns; offsets count characters from the start of the choice. */
export class CompletionLogprobsWriter {
  private offset: number;
  private readonly style: TokenStyle;
  private readonly columns = {
    text_offset: [] as number[],
    token_logprobs: [] as (number | null)[],
    tokens: [] as string[],
    top_logprobs: [] as (() => Alternatives)[],
  };

  constructor(style: TokenStyle, offset = 0) {
    this.style = style;
    this.offset = offset;
  }

  add(token: TokenLogprobs): void {
    this.addWith(token, () => alternatives(token, this.style));
  }

  /** Of a prompt's tokens the alternatives are always the best ones. */
  addPrompt(token: TokenLogprobs): void {
    this.addWith(token, () => best(token, this.style.numTop));
  }

  private addWith(token: TokenLogprobs, others: () => readonly number[]): void {
    this.push(tokenText(token, 0, this.style), clamp(token.logprobs[0]!), () => {
      const top = Object.create(null) as Record<string, number>;
      // The token itself is always among its alternatives, beyond their number where it must be.
      for (const i of [0, ...others()]) {
        top[tokenText(token, i, this.style)] ??= clamp(token.logprobs[i]!);
      }
      return top;
    });
  }

  /** The first token of a prompt, which nothing predicts. */
  addUnpredicted(id: number, text: string): void {
    this.push(this.style.asTokenIds ? `token_id:${id}` : text, null, () => null);
  }

  /** What was added since the last take. */
  take(): CompletionLogprobs {
    const { text_offset, token_logprobs, tokens } = this.columns;
    const tops = this.columns.top_logprobs.splice(0);
    return {
      text_offset: text_offset.splice(0),
      token_logprobs: token_logprobs.splice(0),
      tokens: tokens.splice(0),
      top_logprobs: new Sliced(tops.length, (index) => tops[index]!()),
    };
  }

  private push(text: string, logprob: number | null, top: () => Alternatives): void {
    this.columns.text_offset.push(this.offset);
    this.columns.tokens.push(text);
    this.columns.token_logprobs.push(logprob);
    this.columns.top_logprobs.push(top);
    this.offset += numCharacters(text);
  }
}

export interface PromptLogprob {
  readonly logprob: number;
  readonly rank: number;
  readonly decoded_token: string;
}

/** vLLM's `prompt_logprobs`: a map from token id per position, null for the first. */
export function promptLogprobs(
  output: Pick<RequestOutput, 'numPromptTokens' | 'promptLogprobs'>,
): Sliced<Record<string, PromptLogprob> | null> {
  const style = { asTokenIds: false, numTop: 0, areNamed: false };
  return new Sliced(output.numPromptTokens, (position) => {
    const token = output.promptLogprobs?.get(position);
    if (token === undefined) return null;
    const entries = Array.from(token.ids, (id, i) => [
      String(id),
      {
        logprob: clamp(token.logprobs[i]!),
        rank: token.ranks[i]!,
        decoded_token: tokenText(token, i, style),
      },
    ]);
    return Object.fromEntries(entries) as Record<string, PromptLogprob>;
  });
}

function numCharacters(text: string): number {
  return Array.from(text).length;
}

/** Indexes of the entries to show: as vLLM does, named ones with the token itself before them. */
function alternatives(token: TokenLogprobs, { numTop, areNamed }: TokenStyle): number[] {
  return areNamed ? eachOnce(token, Array.from(token.ids.keys())) : best(token, numTop);
}

/** Indexes of the n most likely entries, each id once, best first. */
function best(token: TokenLogprobs, n: number): number[] {
  const byRank = Array.from(token.ids.keys()).sort((a, b) => token.ranks[a]! - token.ranks[b]!);
  return eachOnce(token, byRank).slice(0, n);
}

function eachOnce({ ids }: TokenLogprobs, indexes: readonly number[]): number[] {
  const seen = new Set<number>();
  return indexes.filter((i) => !seen.has(ids[i]!) && seen.add(ids[i]!));
}

function tokenText(token: TokenLogprobs, i: number, style: TokenStyle): string {
  return style.asTokenIds
    ? `token_id:${token.ids[i]!}`
    : Buffer.from(token.bytes[i]!).toString('utf8');
}

function clamp(logprob: number): number {
  return Math.max(logprob, floor);
}
