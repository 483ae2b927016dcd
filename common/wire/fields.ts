// Checks of header fields: each takes a decoded value and throws a WireError that names the field.
// A message has more senders than this build: every field is looked at before it is believed.
import { WireError } from '../errors.ts';
import { isMap } from '../json-object.ts';

export type Check = (value: unknown, name: string) => void;

/** One check for each field of T beside its kind and its columns. */
export type FieldChecks<T> = { readonly [F in Exclude<keyof T, 'kind' | 'columns'>]: Check };

function must(ok: boolean, name: string, what: string): void {
  if (!ok) throw new WireError(`field ${name} is not ${what}`);
}

export const u32: Check = (value, name) =>
  must(
    Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffffffff,
    name,
    'u32',
  );

/** Step and event counters: an integer from 0 that a double holds exactly. */
export const counter: Check = (value, name) =>
  must(Number.isSafeInteger(value) && (value as number) >= 0, name, 'a count');

export const integer: Check = (value, name) =>
  must(Number.isSafeInteger(value), name, 'an integer');

export const number: Check = (value, name) => must(Number.isFinite(value), name, 'a finite number');

export const string: Check = (value, name) => must(typeof value === 'string', name, 'a string');

export const boolean: Check = (value, name) => must(typeof value === 'boolean', name, 'a boolean');

export const anything: Check = () => undefined;

export const nothing: Check = (value, name) => must(value === null, name, 'nil');

/** Any string-keyed map. */
export const map: Check = (value, name) => must(isMap(value), name, 'a map');

export const nullable =
  (check: Check): Check =>
  (value, name) => {
    if (value !== null) check(value, name);
  };

/** A field that came to a version later: what is older leaves it out, or sends nil. */
export const optional =
  (check: Check): Check =>
  (value, name) => {
    if (value !== undefined && value !== null) check(value, name);
  };

export const oneOf =
  (...values: readonly string[]): Check =>
  (value, name) =>
    must(values.includes(value as string), name, `one of ${values.join(', ')}`);

export const list =
  (check: Check): Check =>
  (value, name) => {
    must(Array.isArray(value), name, 'an array');
    for (const member of value as unknown[]) check(member, name);
  };

export const mapOf =
  (check: Check): Check =>
  (value, name) => {
    map(value, name);
    for (const [key, member] of Object.entries(value as object)) check(member, `${name}.${key}`);
  };

/** A map that has at least these fields. */
export const record =
  (checks: Readonly<Record<string, Check>>): Check =>
  (value, name) => {
    map(value, name);
    checkFields(value as Record<string, unknown>, checks, `${name}.`);
  };

/** Fields that are not named are ignored: a later build of this version may send more. */
export function checkFields(
  fields: Readonly<Record<string, unknown>>,
  checks: Readonly<Record<string, Check>>,
  prefix = '',
): void {
  for (const name in checks) checks[name]!(fields[name], prefix + name);
}
