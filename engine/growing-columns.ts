// Typed arrays that are filled anew for each message and keep their room: a step allocates nothing
// but views, whose number does not depend on requests or tokens.
import {
  columnTypes,
  type ColumnSpec,
  type ColumnsOf,
  type ColumnType,
} from '../common/wire/columns.ts';

const initialLength = 64;
type NumberArray = Int32Array | Uint32Array | Uint8Array | Float32Array | Float64Array;

/** Numbers of one column. */
export class NumberColumn {
  length = 0;
  private array: NumberArray;
  private readonly Type: (typeof columnTypes)[Exclude<ColumnType, 'u64'>];

  constructor(type: Exclude<ColumnType, 'u64'>) {
    this.Type = columnTypes[type];
    this.array = new this.Type(initialLength);
  }

  push(value: number): void {
    if (this.length === this.array.length) this.grow(this.length + 1);
    this.array[this.length++] = value;
  }

  append(values: ArrayLike<number>): void {
    const end = this.length + values.length;
    if (end > this.array.length) this.grow(end);
    this.array.set(values, this.length);
    this.length = end;
  }

  view(): NumberArray {
    return this.array.subarray(0, this.length);
  }

  private grow(length: number): void {
    const larger = new this.Type(2 ** Math.ceil(Math.log2(length)));
    larger.set(this.array);
    this.array = larger;
  }
}

/** 64-bit values of one column. */
export class BigColumn {
  length = 0;
  private array = new BigUint64Array(initialLength);

  push(value: bigint): void {
    if (this.length === this.array.length) {
      const larger = new BigUint64Array(this.length * 2);
      larger.set(this.array);
      this.array = larger;
    }
    this.array[this.length++] = value;
  }

  view(): BigUint64Array {
    return this.array.subarray(0, this.length);
  }
}

export type GrowingColumns<S extends ColumnSpec> = {
  readonly [K in keyof S]: S[K] extends 'u64' ? BigColumn : NumberColumn;
};

export function makeGrowing<S extends ColumnSpec>(spec: S): GrowingColumns<S> {
  const columns: Record<string, BigColumn | NumberColumn> = {};
  for (const name in spec) {
    const type = spec[name] as ColumnType;
    columns[name] = type === 'u64' ? new BigColumn() : new NumberColumn(type);
  }
  return columns as GrowingColumns<S>;
}

export function clearColumns(columns: Readonly<Record<string, { length: number }>>): void {
  for (const name in columns) columns[name]!.length = 0;
}

/** Views of all columns, valid until they are filled anew. */
export function viewColumns<S extends ColumnSpec>(columns: GrowingColumns<S>): ColumnsOf<S> {
  const views: Record<string, unknown> = {};
  for (const name in columns) views[name] = columns[name].view();
  return views as ColumnsOf<S>;
}
