// A body becomes a typed request: explicit null equals absent, fields that are known but not built
// are refused by name, unknown ones are collected (ignored-fields.ts tells the client).
import * as z from 'zod';
import { RequestError } from '../../../common/errors.ts';
import { isObject } from '../../../common/json-object.ts';
import { reasons, type Neutral } from './sampling-fields.ts';

export interface RequestSchema<Shape extends z.ZodRawShape> {
  readonly object: z.ZodObject<Shape>;
  readonly unsupported: Readonly<Record<string, Neutral>>;
  /** Taken without effect. */
  readonly accepted: readonly string[];
}

export interface Parsed<Value> {
  readonly value: Value;
  /** Names of fields that had no effect. */
  readonly ignored: readonly string[];
}

export function parseRequest<Shape extends z.ZodRawShape>(
  schema: RequestSchema<Shape>,
  body: unknown,
): Parsed<z.output<z.ZodObject<Shape>>> {
  if (!isObject(body)) {
    throw new RequestError('bad_request', 'the request body must be a JSON object');
  }
  const known = Object.create(null) as Record<string, unknown>;
  const ignored: string[] = [];
  for (const [key, value] of Object.entries(body)) {
    if (value === null) continue;
    if (Object.hasOwn(schema.object.shape, key)) {
      known[key] = value;
      ignored.push(...unknownInside(schema.object.shape[key]!, key, value));
    } else if (Object.hasOwn(schema.unsupported, key)) {
      if (!schema.unsupported[key]!(value)) throw notBuilt(key, typeOf(value));
    } else if (!schema.accepted.includes(key)) ignored.push(key);
  }
  const result = schema.object.safeParse(known);
  if (!result.success) throw toRequestError(result.error);
  return { value: result.data, ignored };
}

/** Fields of an object field that its schema does not have, as "<field>.<name>". */
function unknownInside(type: z.core.$ZodType, key: string, value: unknown): string[] {
  const inner = type instanceof z.ZodOptional ? type.unwrap() : type;
  if (!(inner instanceof z.ZodObject) || !isObject(value)) return [];
  const names = Object.keys(value).filter((name) => !Object.hasOwn(inner.shape, name));
  return names.map((name) => `${key}.${name}`);
}

const typeOf = (value: unknown) =>
  isObject(value) && typeof value['type'] === 'string' ? value['type'] : '';

/** `value` where it is that which is not built, and other values are. */
export function notBuilt(param: string, value = ''): RequestError {
  const why = Object.hasOwn(reasons, param) ? `: ${reasons[param]!}` : '';
  const what = [param, ...(/^\w{1,64}$/.test(value) ? [value] : [])].join(' ');
  return new RequestError('unsupported', `${what} is not supported by this server${why}`, param);
}

/** The first issue, under the name of its field (within messages: its whole path). */
function toRequestError(error: z.ZodError): RequestError {
  const { path, message } = error.issues[0]!;
  const where = path.map(String).join('.');
  const param = path[0] === 'messages' ? where : String(path[0] ?? '');
  return new RequestError('bad_request', `${where} ${message}`, param);
}
