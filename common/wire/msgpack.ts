// msgpack for headers: core types only (nil, bool, int, float64, str, bin, array, string-keyed map).
// A frame is walked and refused before msgpackr sees it, so that no extension, no huge count and no
// deep nesting ever reaches the decoder.
import { Packr, Unpackr } from 'msgpackr';
import { WireError } from '../errors.ts';

export const maxHeaderBytes = 64 * 1024 * 1024;
export const maxDepth = 8;

// int64AsType 'auto' (a number where it is safe, else a BigInt) is missing from msgpackr's types.
const options = { useRecords: false, moreTypes: false, variableMapSize: true, int64AsType: 'auto' };
const packr = new Packr(options as object);
const unpackr = new Unpackr(options as object);

/**
 * Encodes a header. Undefined members are left out, integers above 32 bits are written as 64-bit,
 * lone surrogates become U+FFFD. Throws WireError, with the field, on nesting that the other end
 * would refuse and on BigInts of more than 64 bits.
 */
export function encodeHeader(value: object): Uint8Array {
  const header: Record<string, Plain> = {};
  for (const [name, member] of Object.entries(value))
    if (member !== undefined) header[wellFormed(name)] = cleanField(name, member);
  // packr reuses a pool: the slice keeps a sent frame from being overwritten.
  return Uint8Array.prototype.slice.call(packr.pack(header));
}

type Plain =
  null | boolean | number | bigint | string | Uint8Array | Plain[] | { [key: string]: Plain };

function cleanField(name: string, value: unknown): Plain {
  try {
    return clean(value, 1);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new WireError(`field ${name}: ${error.message}`, name);
  }
}

function clean(value: unknown, depth: number): Plain {
  if (depth > maxDepth) throw new WireError(`nesting deeper than ${maxDepth}`);
  // msgpackr writes integers outside its 32-bit range as float64 unless they are BigInts.
  if (typeof value === 'number')
    return Number.isSafeInteger(value) && (value > 0xffffffff || value < -0x80000000)
      ? BigInt(value)
      : value;
  if (typeof value === 'string') return wellFormed(value);
  if (typeof value === 'boolean') return value;
  if (typeof value === 'bigint') {
    if (value < -(2n ** 63n) || value >= 2n ** 64n) throw new WireError('more than 64 bits');
    return value;
  }
  if (typeof value !== 'object') return null;
  if (value === null || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((member) => clean(member, depth + 1));
  const out: Record<string, Plain> = {};
  for (const [key, member] of Object.entries(value))
    if (member !== undefined) out[wellFormed(key)] = clean(member, depth + 1);
  return out;
}

/** Not yet in the es2023 library's types. */
function wellFormed(text: string): string {
  return (text as unknown as { toWellFormed(): string }).toWellFormed();
}

/** Decodes a header that must be one string-keyed map. Throws WireError. */
export function decodeHeader(frame: Uint8Array): Record<string, unknown> {
  if (frame.length > maxHeaderBytes) throw new WireError(`header over ${maxHeaderBytes} bytes`);
  if (scan(frame, 0, 0) !== frame.length) throw new WireError('bytes after the header');
  const value = unpackr.unpack(frame) as unknown;
  if (
    value === null ||
    typeof value !== 'object' ||
    Array.isArray(value) ||
    value instanceof Uint8Array
  )
    throw new WireError('header is not a map');
  return value as Record<string, unknown>;
}

/** Walks one value at `at` and returns the offset after it; allocates nothing. */
function scan(b: Uint8Array, at: number, depth: number): number {
  if (depth > maxDepth) throw new WireError(`nesting deeper than ${maxDepth}`);
  if (at >= b.length) throw new WireError('truncated header');
  const tag = b[at]!;
  if (tag <= 0x7f || tag >= 0xe0) return at + 1;
  if (tag <= 0x8f) return scanMap(b, at + 1, tag & 0x0f, depth);
  if (tag <= 0x9f) return scanArray(b, at + 1, tag & 0x0f, depth);
  if (tag <= 0xbf) return skip(b, at + 1, tag & 0x1f);
  switch (tag) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return at + 1;
    case 0xc4:
    case 0xd9:
      return skip(b, at + 2, uint(b, at + 1, 1));
    case 0xc5:
    case 0xda:
      return skip(b, at + 3, uint(b, at + 1, 2));
    case 0xc6:
    case 0xdb:
      return skip(b, at + 5, uint(b, at + 1, 4));
    case 0xca:
    case 0xce:
    case 0xd2:
      return skip(b, at + 1, 4);
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return skip(b, at + 1, 8);
    case 0xcc:
    case 0xd0:
      return skip(b, at + 1, 1);
    case 0xcd:
    case 0xd1:
      return skip(b, at + 1, 2);
    case 0xdc:
      return scanArray(b, at + 3, uint(b, at + 1, 2), depth);
    case 0xdd:
      return scanArray(b, at + 5, uint(b, at + 1, 4), depth);
    case 0xde:
      return scanMap(b, at + 3, uint(b, at + 1, 2), depth);
    case 0xdf:
      return scanMap(b, at + 5, uint(b, at + 1, 4), depth);
    default:
      throw new WireError(`msgpack type 0x${tag.toString(16)} is not allowed`);
  }
}

function scanArray(b: Uint8Array, at: number, count: number, depth: number): number {
  if (count > b.length - at) throw new WireError('array longer than its frame');
  for (let i = 0; i < count; i++) at = scan(b, at, depth + 1);
  return at;
}

function scanMap(b: Uint8Array, at: number, count: number, depth: number): number {
  if (count * 2 > b.length - at) throw new WireError('map longer than its frame');
  for (let i = 0; i < count; i++) {
    const tag = b[at] ?? 0xc0;
    const isString = (tag >= 0xa0 && tag <= 0xbf) || tag === 0xd9 || tag === 0xda || tag === 0xdb;
    if (!isString) throw new WireError('map key is not a string');
    at = scan(b, scan(b, at, depth + 1), depth + 1);
  }
  return at;
}

function skip(b: Uint8Array, at: number, length: number): number {
  if (at + length > b.length) throw new WireError('truncated header');
  return at + length;
}

function uint(b: Uint8Array, at: number, bytes: number): number {
  if (at + bytes > b.length) throw new WireError('truncated header');
  let value = 0;
  for (let i = 0; i < bytes; i++) value = value * 256 + b[at + i]!;
  return value;
}
