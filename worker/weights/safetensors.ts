// The header of a safetensors file: eight bytes of length, JSON, then tensors back to back. Every
// size and offset is checked before it is used, so that a bad file is an error that names file and
// tensor and never a wrong read.
import { badModel } from '../../common/errors.ts';
import { parseModelJson } from '../../common/json-bounds.ts';
import { isObject } from '../../common/json-object.ts';
import type { TensorFile } from './tensor-file.ts';

/** Bytes per element; checkpoints may hold tensors that no model reads. */
const elementBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const;

export type SafetensorsDtype = keyof typeof elementBytes;

export interface TensorEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Byte range in the file. */
  readonly begin: number;
  readonly end: number;
}

export const maxHeaderBytes = 100 * 1000 * 1000;
const maxDimensions = 8;

/** Entries by name. Throws StartError (exit 65). */
export function readSafetensorsHeader(source: TensorFile): Map<string, TensorEntry> {
  const { path: file, numBytes } = source;
  const fail = (message: string) => badModel(`${file}: ${message}`);
  if (numBytes < 8) throw fail(`${numBytes} bytes are no safetensors file`);
  const first = source.slice(0, 8);
  const declared = new DataView(first.buffer, first.byteOffset).getBigUint64(0, true);
  if (declared > BigInt(maxHeaderBytes)) throw fail(`header of ${declared} bytes is too long`);
  const headerBytes = Number(declared);
  if (8 + headerBytes > numBytes)
    throw fail(`header of ${headerBytes} bytes ends after the file's ${numBytes}`);
  const entries = Object.entries(parseHeader(source.slice(8, 8 + headerBytes), fail))
    .filter(([name]) => name !== '__metadata__')
    .map(([name, value]) => readEntry(file, name, value, 8 + headerBytes))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkRanges(file, entries, 8 + headerBytes, numBytes);
  return new Map(entries.map((entry) => [entry.name, entry]));
}

function parseHeader(
  bytes: Uint8Array,
  fail: (message: string) => Error,
): Readonly<Record<string, unknown>> {
  let header: unknown;
  try {
    header = parseModelJson(bytes);
  } catch (error) {
    throw fail(`header: ${(error as Error).message}`);
  }
  if (!isObject(header)) throw fail('header is not a JSON object');
  return header;
}

function readEntry(file: string, name: string, value: unknown, base: number): TensorEntry {
  const fail = (message: string) => badModel(`${file}: tensor ${shown(name)}: ${message}`);
  if (!isObject(value)) throw fail('entry is not an object');
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype))
    throw fail(`unknown dtype ${shown(dtype)}`);
  if (!isSizes(shape) || shape.length > maxDimensions) throw fail('shape is not a list of sizes');
  if (!isSizes(offsets) || offsets.length !== 2)
    throw fail('data_offsets are not two byte offsets');
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw fail(`data_offsets ${begin}..${end} run backwards`);
  const known = dtype as SafetensorsDtype;
  // Exact for any sizes: a product of doubles could round to the expected one.
  const expected = shape.reduce((product, size) => product * BigInt(size), 1n);
  const expectedBytes = expected * BigInt(elementBytes[known]);
  if (expectedBytes !== BigInt(end - begin))
    throw fail(`${dtype} [${shape.join(',')}] is ${expectedBytes} bytes, not ${end - begin}`);
  return { name, dtype: known, shape, begin: base + begin, end: base + end };
}

/** Tensors lie one after another from the header to the end of the file. */
function checkRanges(
  file: string,
  entries: readonly TensorEntry[],
  base: number,
  fileBytes: number,
): void {
  let position = base;
  for (const { name, begin, end } of entries) {
    const where = `${file}: tensor ${shown(name)}`;
    if (begin < position) throw badModel(`${where} overlaps the one before it`);
    if (begin > position) throw badModel(`${where} leaves a gap of ${begin - position} bytes`);
    if (end > fileBytes)
      throw badModel(`${where} ends at byte ${end}, but the file has ${fileBytes}: truncated?`);
    position = end;
  }
  if (position !== fileBytes)
    throw badModel(`${file}: ${fileBytes - position} bytes follow the last tensor`);
}

/** A stranger's word as a part of one line: plain as it is, anything else quoted, and never long. */
function shown(word: unknown): string {
  if (typeof word === 'string' && /^[\w./-]{1,200}$/.test(word)) return word;
  const text = word === undefined ? 'undefined' : JSON.stringify(word);
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}

function isSizes(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0)
  );
}
