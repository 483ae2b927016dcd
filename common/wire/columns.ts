// Columns: the typed arrays of one message, laid out in one little-endian body frame, each at an
// 8-byte aligned offset. Everything that scales with requests or tokens crosses a process border
// as a column; nothing here knows what a column means.
import { WireError } from '../errors.ts';

export type Column =
  Uint8Array | Int32Array | Uint32Array | Float32Array | Float64Array | BigUint64Array;

/** Element types on the wire, by name in the column table. */
export const columnTypes = {
  u8: Uint8Array,
  i32: Int32Array,
  u32: Uint32Array,
  f32: Float32Array,
  f64: Float64Array,
  u64: BigUint64Array,
} as const;

export type ColumnType = keyof typeof columnTypes;
export interface ColumnArrays {
  u8: Uint8Array;
  i32: Int32Array;
  u32: Uint32Array;
  f32: Float32Array;
  f64: Float64Array;
  u64: BigUint64Array;
}
export type ColumnOf<T extends ColumnType> = ColumnArrays[T];
export type Columns = Readonly<Record<string, Column>>;

/** What a message's columns must be: name to element type, in table order. */
export type ColumnSpec = Readonly<Record<string, ColumnType>>;
export type ColumnsOf<S extends ColumnSpec> = { readonly [K in keyof S]: ColumnOf<S[K]> };

/** One row of the column table in the header: name, type, byte offset in the body, element count. */
export type ColumnEntry = [name: string, type: ColumnType, offset: number, count: number];

export const columnAlignment = 8;
/** Refused before anything is read: larger bodies than this (bytes), more columns than this. */
export const maxBodyBytes = 256 * 1024 * 1024;
export const maxColumns = 64;

const align = (n: number) => Math.ceil(n / columnAlignment) * columnAlignment;

function typeOf(column: Column): ColumnType {
  if (column instanceof Uint8Array) return 'u8';
  if (column instanceof Int32Array) return 'i32';
  if (column instanceof Uint32Array) return 'u32';
  if (column instanceof Float32Array) return 'f32';
  if (column instanceof Float64Array) return 'f64';
  return 'u64';
}

/**
 * Lays columns out in a fresh body; the caller may reuse its arrays at once. `leaveOutEmpty`: for a
 * receiver that uses fillColumns.
 */
export function packColumns(
  columns: Columns,
  leaveOutEmpty = false,
): { table: ColumnEntry[]; body: Uint8Array } {
  const table: ColumnEntry[] = [];
  let size = 0;
  for (const name in columns) {
    const column = columns[name]!;
    if (leaveOutEmpty && column.length === 0) continue;
    table.push([name, typeOf(column), size, column.length]);
    size = align(size + column.byteLength);
  }
  const body = new Uint8Array(size);
  for (const [name, , offset] of table) {
    const column = columns[name]!;
    body.set(new Uint8Array(column.buffer, column.byteOffset, column.byteLength), offset);
  }
  return { table, body };
}

/**
 * Views of the columns that the table names; copies nothing unless the frame itself is unaligned.
 * Every entry is checked against the body before it is read. Throws WireError.
 */
export function unpackColumns(table: unknown, frame: Uint8Array): Columns {
  if (!Array.isArray(table)) throw new WireError('column table is not an array');
  if (table.length > maxColumns) throw new WireError(`more than ${maxColumns} columns`);
  if (frame.length > maxBodyBytes) throw new WireError(`body over ${maxBodyBytes} bytes`);
  const body = frame.byteOffset % columnAlignment === 0 ? frame : frame.slice();
  const columns: Record<string, Column> = Object.create(null) as Record<string, Column>;
  for (const entry of table as unknown[]) {
    if (!Array.isArray(entry) || entry.length !== 4) throw new WireError('bad column table entry');
    const [name, type, offset, count] = entry as unknown[];
    if (typeof name !== 'string' || typeof type !== 'string' || !Object.hasOwn(columnTypes, type))
      throw new WireError('bad column name or type');
    const Type = columnTypes[type as ColumnType];
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(count) ||
      (offset as number) < 0 ||
      (count as number) < 0 ||
      (offset as number) % columnAlignment !== 0 ||
      (offset as number) + (count as number) * Type.BYTES_PER_ELEMENT > body.length
    )
      throw new WireError(`column ${name}: offset or count outside the body`);
    if (name in columns) throw new WireError(`column ${name} appears twice`);
    columns[name] = new Type(
      body.buffer as ArrayBuffer,
      body.byteOffset + (offset as number),
      count as number,
    );
  }
  return columns;
}

/** Checks that a message has exactly the columns of its kind, with their types. Throws WireError. */
export function checkColumns<S extends ColumnSpec>(columns: Columns, spec: S): ColumnsOf<S> {
  for (const name in spec) {
    const column = columns[name];
    if (!column) throw new WireError(`column ${name} is missing`);
    if (typeOf(column) !== spec[name]) throw new WireError(`column ${name} is not ${spec[name]!}`);
  }
  for (const name in columns)
    if (!Object.hasOwn(spec, name)) throw new WireError(`unknown column ${name}`);
  return columns as ColumnsOf<S>;
}

/** checkColumns for a message that leaves out columns without elements: these become empty ones. */
export function fillColumns<S extends ColumnSpec>(columns: Columns, spec: S): ColumnsOf<S> {
  const all: Record<string, Column> = { ...emptyColumns(spec) };
  for (const name in columns) {
    if (!Object.hasOwn(spec, name)) throw new WireError(`unknown column ${name}`);
    const column = columns[name]!;
    if (typeOf(column) !== spec[name]) throw new WireError(`column ${name} is not ${spec[name]!}`);
    all[name] = column;
  }
  return all as ColumnsOf<S>;
}

const emptyBySpec = new WeakMap<ColumnSpec, Columns>();

/** A column without elements for each of a kind's; the same ones every time. */
export function emptyColumns<S extends ColumnSpec>(spec: S): ColumnsOf<S> {
  let empty = emptyBySpec.get(spec);
  if (!empty) {
    const entries = Object.entries(spec).map(([name, type]) => [name, new columnTypes[type](0)]);
    empty = Object.fromEntries(entries) as Columns;
    emptyBySpec.set(spec, empty);
  }
  return empty as ColumnsOf<S>;
}
