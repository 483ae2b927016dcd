// Building blocks of the request schemas. Each field has one message that states its whole rule, so
// that an error reads "<field> <rule>" whatever was wrong with the value.
import * as z from 'zod';
import { isObject, type Json } from '../../../common/json-object.ts';
import { requestIdPattern } from '../request-id.ts';

/** As in vLLM, true and false may come as text. */
export const boolean = () =>
  z.preprocess(
    (value) => (typeof value === 'string' ? (truths.get(value.toLowerCase()) ?? value) : value),
    z.boolean({ error: 'must be true or false' }),
  );

const truths = new Map([
  ['true', true],
  ['false', false],
]);

/** A finite number in [min, max]; `above` excludes the lower end. */
export function number(min: number, max: number, above = false) {
  const error = `must be a number in ${above ? '(' : '['}${min}, ${max}]`;
  const base = z.number({ error }).max(max, { error });
  return z.preprocess(fromText, above ? base.gt(min, { error }) : base.min(min, { error }));
}

/** An integer in [min, max]. */
export function integer(min: number, max: number) {
  return z.preprocess(fromText, wholeNumber(min, max));
}

function wholeNumber(min: number, max: number) {
  const error = `must be an integer in [${min}, ${max}]`;
  if (max !== maxInt32) return z.int({ error }).min(min, { error }).max(max, { error });
  const open = `must be an integer that is ${min} or more`;
  return z.int({ error: open }).min(min, { error: open }).max(max, { error });
}

/** As in vLLM, a number may come as text. */
function fromText(value: unknown): unknown {
  return typeof value === 'string' && decimal.test(value) ? Number(value) : value;
}

const decimal = /^\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?\s*$/i;

export const maxInt32 = 2 ** 31 - 1;

export const string = () => z.string({ error: 'must be a string' });

export function name() {
  const error = 'must be a string, and not an empty one';
  return z.string({ error }).min(1, { error });
}

/** A string of 1 to maxBytes bytes of UTF-8. */
export function text(maxBytes: number) {
  const error = `must be a string of 1 to ${maxBytes} bytes`;
  return z
    .string({ error })
    .min(1, { error })
    .refine((value) => Buffer.byteLength(value) <= maxBytes, { error });
}

/** What may be a request's id: it comes back in a header. */
export function requestId() {
  const error = 'must be 1 to 128 letters, digits or ._:-';
  return z.string({ error }).regex(requestIdPattern, { error });
}

/** A list of token ids; whether they are in the vocabulary is checked when it is known. */
export function tokenIds(minLength: number, maxLength = Infinity) {
  const range = maxLength === Infinity ? `${minLength} or more` : `${minLength} to ${maxLength}`;
  const error = `must be a list of ${range} token ids`;
  return z
    .array(wholeNumber(0, maxInt32), { error })
    .min(minLength, { error })
    .max(maxLength, { error });
}

/** One string or a list of them, always read as a list. */
export function texts(maxCount: number, maxBytes: number) {
  const error = `must be a string or a list of at most ${maxCount} strings`;
  return z.preprocess(
    (value) => (typeof value === 'string' ? [value] : value),
    z.array(text(maxBytes), { error }).max(maxCount, { error }),
  );
}

/**
 * A signed 64-bit integer, as a number or as text, to an unsigned one; -1 = none. Numbers beyond 2^53
 * are bigints (json-body).
 */
export function seed() {
  const error = 'must be an integer in [-2^63, 2^63 - 1]';
  return z
    .custom<number | bigint | string>(
      (value) =>
        (typeof value === 'bigint' || Number.isInteger(value) || isWholeText(value)) &&
        BigInt(value as number | bigint) === BigInt.asIntN(64, BigInt(value as number | bigint)),
      { error },
    )
    .transform((value) => (Number(value) === -1 ? null : BigInt.asUintN(64, BigInt(value))));
}

const isWholeText = (value: unknown) => typeof value === 'string' && /^-?\d{1,19}$/.test(value);

/** { "token id": bias }; biases are clamped to [-100, 100]. */
export function logitBias(maxEntries: number) {
  const error = `must be an object of at most ${maxEntries} token ids and finite numbers`;
  return z.unknown().transform((value, context) => {
    const entries = isObject(value) ? Object.entries(value) : null;
    const ids: number[] = [];
    const values: number[] = [];
    for (const [key, bias] of entries ?? []) {
      if (!/^\d{1,9}$/.test(key) || typeof bias !== 'number' || !Number.isFinite(bias)) break;
      ids.push(Number(key));
      values.push(Math.min(100, Math.max(-100, bias)));
    }
    if (entries === null || entries.length > maxEntries || ids.length < entries.length) {
      context.addIssue({ code: 'custom', message: error });
      return z.NEVER;
    }
    return { ids, values };
  });
}

/** A JSON object; what may be in it is checked by whoever reads it. */
export function object() {
  return z.custom<Json>(isObject, { error: 'must be an object' });
}
