// What came as JSON or msgpack, and is a map of names to values.
export type Json = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The same of msgpack, where a value may be bytes. */
export function isMap(value: unknown): value is Json {
  return isObject(value) && !(value instanceof Uint8Array);
}
