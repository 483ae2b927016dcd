// What a flag is, and the kinds of flags that there are by the type of their value.
import { parseChoice, parseInteger, parseSeconds, parseSomeSeconds, parseText } from './values.ts';

export interface Flag<T> {
  readonly name: string;
  /** How its value is shown in help; null = a switch, with a `--no-` form. */
  readonly value: string | null;
  readonly default: T;
  readonly help: string;
  /** `previous` is the value so far, where several may be given. */
  parse(text: string, previous: unknown): T;
}

export const integer = (name: string, initial: number, min: number, max: number, help: string) =>
  ({
    name,
    value: '<n>',
    default: initial,
    help,
    parse: (text) => parseInteger(text, min, max),
  }) satisfies Flag<number>;

export const optionalInteger = (
  name: string,
  min: number,
  max: number,
  help: string,
): Flag<number | null> => ({
  name,
  value: '<n>',
  default: null,
  help,
  parse: (text) => parseInteger(text, min, max),
});

/** -1 is auto, as with vLLM. */
export const integerOrAuto = (
  name: string,
  min: number,
  max: number,
  help: string,
): Flag<number | 'auto' | null> => ({
  name,
  value: '<n|auto>',
  default: null,
  help,
  parse: (text) => (text === 'auto' || text === '-1' ? 'auto' : parseInteger(text, min, max)),
});

export const seconds = (name: string, initial: number, help: string): Flag<number> => ({
  name,
  value: '<seconds>',
  default: initial,
  help,
  parse: parseSeconds,
});

/** A time that must be some. */
export const someSeconds = (name: string, initial: number, help: string): Flag<number> => ({
  ...seconds(name, initial, help),
  parse: parseSomeSeconds,
});

export const text = (name: string, value: string, help: string): Flag<string | null> => ({
  name,
  value,
  default: null,
  help,
  parse: parseText,
});

export const texts = (name: string, value: string, help: string): Flag<readonly string[]> => ({
  name,
  value,
  default: [],
  help,
  parse: (given, previous) => [...(isGiven(previous) ? previous : []), parseText(given)],
});

/** commander hands the default on as the first `previous`: an empty list, never changed. */
const isGiven = (previous: unknown): previous is readonly string[] => Array.isArray(previous);

export function choice<const T extends string>(
  name: string,
  choices: readonly T[],
  initial: NoInfer<T>,
  help: string,
): Flag<T> {
  return {
    name,
    value: `<${choices.join('|')}>`,
    default: initial,
    help,
    parse: (given) => parseChoice(given, choices),
  };
}

export const onOff = (name: string, initial: boolean, help: string): Flag<boolean> => ({
  name,
  value: null,
  default: initial,
  help,
  parse: (given) => given === 'true',
});

/** Largest value of a flag that has no other bound. */
export const maxInt = 2 ** 31 - 1;
