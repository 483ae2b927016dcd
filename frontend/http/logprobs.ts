// Logprobs in the shapes of the two APIs. A token's entries have the token itself first and then the
// best ones, among which it may be again. What is made of a token is made when it is written.
import type { RequestOutput } from '../engine-client-types.ts';
import type { LogprobList } from '../logprob-list.ts';
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

export function chatLogprobs(
  { logprobs: list }: RequestOutput,
  style: TokenStyle,
): ChatLogprobs | null {
  if (list === null) return null;
  const show = (entry: number): ChatLogprob => ({
    token: textOf(list, entry, style),
    logprob: logprobOf(list, entry),
    bytes: [...list.bytesOf(entry)],
  });
  return {
    content: new Sliced(list.length, (token) => ({
      ...show(list.firstEntry(token)),
      top_logprobs: alternatives(list, token, style).map(show),
    })),
  };
}

type Alternatives = Readonly<Record<string, number>> | null;

export interface CompletionLogprobs {
  readonly text_offset: Sliced<number>;
  readonly token_logprobs: Sliced<number | null>;
  readonly tokens: Sliced<string>;
  readonly top_logprobs: Sliced<Alternatives>;
}

/** The first token of a prompt, which nothing predicts. */
export interface FirstToken {
  readonly id: number;
  readonly text: string;
}

/** Writes a choice in parts; offsets count characters from its start. */
export class CompletionLogprobsWriter {
  private readonly style: TokenStyle;
  /** Where what was written last ends. */
  private end: () => number = () => 0;

  constructor(style: TokenStyle) {
    this.style = style;
  }

  /** An echoed prompt's tokens, if there is one, then those of the output. */
  write(
    echo: { readonly first: FirstToken; readonly rest: LogprobList | null } | null,
    output: LogprobList | null,
  ): CompletionLogprobs {
    const { style } = this;
    const numFirst = echo === null ? 0 : 1;
    const numEchoed = numFirst + (echo?.rest?.length ?? 0);
    const length = numEchoed + (output?.length ?? 0);
    const tokenAt = <T>(i: number, show: (list: LogprobList, token: number) => T) =>
      i < numEchoed ? show(echo!.rest!, i - numFirst) : show(output!, i - numEchoed);
    const text = (i: number) =>
      i < numFirst
        ? showToken(echo!.first.id, echo!.first.text, style)
        : tokenAt(i, (list, token) => textOf(list, list.firstEntry(token), style));
    const offsets = lazyOffsets(this.end(), length, text);
    this.end = () => offsets(length);
    return {
      text_offset: new Sliced(length, offsets),
      token_logprobs: new Sliced(length, (i) =>
        i < numFirst ? null : tokenAt(i, (list, token) => logprobOf(list, list.firstEntry(token))),
      ),
      tokens: new Sliced(length, text),
      top_logprobs: new Sliced(length, (i) => {
        if (i < numFirst) return null;
        return tokenAt(i, (list, token) => {
          // Of a prompt's tokens the alternatives are always the best ones.
          const others =
            i < numEchoed ? best(list, token, style.numTop) : alternatives(list, token, style);
          const top = Object.create(null) as Record<string, number>;
          // The token itself is always among its alternatives, beyond their number where it must be.
          for (const entry of [list.firstEntry(token), ...others])
            top[textOf(list, entry, style)] ??= logprobOf(list, entry);
          return top;
        });
      }),
    };
  }
}

/** Of tokens 0 to length, the last one's end included; each is counted on from those asked for. */
function lazyOffsets(begin: number, length: number, text: (index: number) => string) {
  const offsets = new Float64Array(length + 1);
  offsets[0] = begin;
  let numKnown = 1;
  return (index: number): number => {
    for (; numKnown <= index; numKnown++)
      offsets[numKnown] = offsets[numKnown - 1]! + numCharacters(text(numKnown - 1));
    return offsets[index]!;
  };
}

export interface PromptLogprob {
  readonly logprob: number;
  readonly rank: number;
  readonly decoded_token: string;
}

/** vLLM's `prompt_logprobs`: a map from token id per position, null for the first. */
export function promptLogprobs(
  list: LogprobList | null,
  numPromptTokens: number,
): Sliced<Record<string, PromptLogprob> | null> {
  return new Sliced(numPromptTokens, (position) => {
    const token = list === null ? -1 : position - list.position;
    if (list === null || token < 0 || token >= list.length) return null;
    const { ids, ranks } = list.columns;
    const entries: Record<string, PromptLogprob> = {};
    for (const entry of entriesOf(list, token))
      entries[ids[entry]!] = {
        logprob: logprobOf(list, entry),
        rank: ranks[entry]!,
        decoded_token: list.textOf(entry),
      };
    return entries;
  });
}

function numCharacters(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i += text.codePointAt(i)! > 0xffff ? 2 : 1) count++;
  return count;
}

function entriesOf(list: LogprobList, token: number): number[] {
  const begin = list.firstEntry(token);
  return Array.from({ length: list.firstEntry(token + 1) - begin }, (_, i) => begin + i);
}

/** The entries to show: as vLLM does, named ones with the token itself before them. */
function alternatives(list: LogprobList, token: number, { numTop, areNamed }: TokenStyle) {
  return areNamed ? eachOnce(list, entriesOf(list, token)) : best(list, token, numTop);
}

/** The n most likely entries, each id once, best first. */
function best(list: LogprobList, token: number, n: number): number[] {
  const { ranks } = list.columns;
  const byRank = entriesOf(list, token).sort((a, b) => ranks[a]! - ranks[b]!);
  return eachOnce(list, byRank).slice(0, n);
}

function eachOnce({ columns: { ids } }: LogprobList, entries: readonly number[]): number[] {
  const seen = new Set<number>();
  return entries.filter((entry) => !seen.has(ids[entry]!) && seen.add(ids[entry]!));
}

function textOf(list: LogprobList, entry: number, style: TokenStyle): string {
  return style.asTokenIds ? showToken(list.columns.ids[entry]!, '', style) : list.textOf(entry);
}

function showToken(id: number, text: string, { asTokenIds }: TokenStyle): string {
  return asTokenIds ? `token_id:${id}` : text;
}

function logprobOf({ columns }: LogprobList, entry: number): number {
  return Math.max(columns.logprobs[entry]!, floor);
}
