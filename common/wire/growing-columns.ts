// All columns of a message in arrays that are filled anew for each message and keep their room: a
// message allocates nothing but views, whose number does not depend on requests or tokens.
import { GrowableColumn, type NumberArray } from '../growable-column.ts';
import { columnTypes, type ColumnSpec, type ColumnsOf, type ColumnType } from './columns.ts';

const initialLength = 64;
type NumberType = Exclude<ColumnType, 'u64'>;

/** 64-bit values of one column. */
export class BigColumn {
  private count = 0;
  private data = new BigUint64Array(initialLength);

  get length(): number {
    return this.count;
  }

  push(value: bigint): void {
    if (this.count === this.data.length) {
      const larger = new BigUint64Array(this.count * 2);
      larger.set(this.data);
      this.data = larger;
    }
    this.data[this.count++] = value;
  }

  /** The elements, as a view that is good until the next change. */
  view(): BigUint64Array {
    return this.data.subarray(0, this.count);
  }

  clear(): void {
    this.count = 0;
  }
}

type ArrayOf<T extends NumberType> = InstanceType<(typeof columnTypes)[T]>;

export type GrowingColumns<S extends ColumnSpec> = {
  readonly [K in keyof S]: S[K] extends NumberType ? GrowableColumn<ArrayOf<S[K]>> : BigColumn;
};

export function makeGrowing<S extends ColumnSpec>(spec: S): GrowingColumns<S> {
  const columns: Record<string, unknown> = {};
  for (const name in spec) {
    const type = spec[name] as ColumnType;
    columns[name] =
      type === 'u64'
        ? new BigColumn()
        : new GrowableColumn<NumberArray>(columnTypes[type], initialLength);
  }
  return columns as GrowingColumns<S>;
}

export function clearColumns(columns: Readonly<Record<string, { clear(): void }>>): void {
  for (const name in columns) columns[name]!.clear();
}

/** Views of all columns, valid until they are filled anew. */
export function viewColumns<S extends ColumnSpec>(columns: GrowingColumns<S>): ColumnsOf<S> {
  const views: Record<string, unknown> = {};
  for (const name in columns) views[name] = columns[name].view();
  return views as ColumnsOf<S>;
}
