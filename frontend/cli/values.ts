// How the text of a flag becomes a value. A bad value throws, and the message says what is right;
// the flag's name is added by whoever parses the command line.
import { isIP } from 'node:net';
import { InvalidArgumentError } from 'commander';
import { isObject, type Json } from '../../common/json-object.ts';

const suffixes: Readonly<Record<string, number>> = {
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** A whole number; 1k = 1000, 1K = 1024, 25.6k = 25600 and so on for m/M, g/G, t/T. */
export function parseInteger(text: string, min: number, max: number): number {
  const match = /^(-?\d+)(\.\d+)?([kmgtKMGT])?$/.exec(text);
  const [, whole = '', fraction = '', suffix = ''] = match ?? [];
  // A fraction of 1024 is nobody's meaning.
  const isValid = match !== null && (fraction === '' || /[kmgt]/.test(suffix));
  const value = isValid ? Math.round(Number(whole + fraction) * (suffixes[suffix] ?? 1)) : NaN;
  if (!Number.isSafeInteger(value))
    throw new InvalidArgumentError(`'${text}' is not a whole number (such as 2048, 2k or 2K).`);
  if (value < min || value > max)
    throw new InvalidArgumentError(`${value} is outside ${min} to ${max}.`);
  return value;
}

/** An empty one is a variable that is not set, and not what was meant. */
export function parseText(text: string): string {
  if (text === '') throw new InvalidArgumentError('its value is empty.');
  return text;
}

/** An IP address, or a name that may be one's; without scheme or port. */
export function parseHost(text: string): string {
  const host = parseText(text);
  if (isIP(host.replace(/^\[(.*)\]$/, '$1')) !== 0 || /^\w[\w.-]*$/.test(host)) return host;
  throw new InvalidArgumentError(`'${host}' is not the address or name of a host.`);
}

/** Seconds, as a decimal number. */
export function parseSeconds(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (!Number.isFinite(value) || value > 1e6)
    throw new InvalidArgumentError(`'${text}' is not a number of seconds.`);
  return value;
}

/** The same, above 0. */
export function parseSomeSeconds(text: string): number {
  const value = parseSeconds(text);
  if (value < 0.001) throw new InvalidArgumentError('this must be at least 0.001.');
  return value;
}

/** A share of a whole: above 0, at most 1. */
export function parseShare(text: string): number {
  const value = /^\d*\.?\d+$/.test(text) ? Number(text) : NaN;
  if (!(value > 0 && value <= 1))
    throw new InvalidArgumentError(`'${text}' is not above 0 and at most 1.`);
  return value;
}

/** What people call some choices of devices and dtypes. */
const synonyms = new Map([
  ['gpu', 'cuda'],
  ['fp16', 'float16'],
  ['bf16', 'bfloat16'],
  ['fp32', 'float32'],
]);

/** One of `choices`; an error names the nearest. */
export function parseChoice<T extends string>(text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found !== undefined) return found;
  const synonym = choices.find((choice) => choice === synonyms.get(text.toLowerCase()));
  const near = synonym ?? nearest(text, choices);
  const hint = near === null ? '' : ` Did you mean ${near}?`;
  throw new InvalidArgumentError(`'${text}' is not one of ${choices.join(', ')}.${hint}`);
}

export function parseJsonObject(text: string): Json {
  const value = parseJson(text);
  if (!isObject(value))
    throw new InvalidArgumentError('a JSON object is expected, such as \'{"temperature": 0.7}\'.');
  return value;
}

/** A JSON list of texts, as vLLM has it. */
export function parseJsonTexts(text: string): readonly string[] {
  const value = parseJson(text);
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string'))
    throw new InvalidArgumentError('a JSON list of texts is expected, such as \'["*"]\'.');
  return value;
}

/** undefined where it is no JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The only candidate that begins so, else the one with the smallest edit distance, if it is small. */
export function nearest(text: string, candidates: readonly string[]): string | null {
  const longer = candidates.filter((candidate) => candidate.startsWith(text.toLowerCase()));
  if (longer.length === 1 && text !== '') return longer[0]!;
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.ceil(text.length * 0.4)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(text.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(
        Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)),
      );
    row = next;
  }
  return row[b.length]!;
}
