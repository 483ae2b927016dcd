// Rules between the columns of one message: equal lengths, prefix sums, counts that add up. After
// them a receiver may index without looking. Everything throws WireError.
import { WireError } from '../errors.ts';
import type { Column, Columns } from './columns.ts';

/** Every named column has `length` elements. */
export function checkLength(columns: Columns, length: number, ...names: readonly string[]): void {
  for (const name of names)
    if (columns[name]!.length !== length)
      throw new WireError(`column ${name} has ${columns[name]!.length} elements, not ${length}`);
}

/** `starts` is a prefix sum: [0, ..., total], never falling, n + 1 elements. */
export function checkStarts(name: string, starts: Uint32Array, n: number, total: number): void {
  if (starts.length !== n + 1)
    throw new WireError(`column ${name} has ${starts.length} elements, not ${n + 1}`);
  if (starts[0] !== 0) throw new WireError(`column ${name} does not start at 0`);
  let last = 0;
  for (const start of starts) {
    if (start < last) throw new WireError(`column ${name} falls`);
    last = start;
  }
  if (last !== total) throw new WireError(`column ${name} ends at ${last}, not ${total}`);
}

/** Every element is in [low, limit). */
export function checkRange(name: string, column: Column, low: number, limit: number): void {
  for (const value of column)
    if (!(value >= low && value < limit)) throw new WireError(`column ${name} holds ${value}`);
}

/** Sum of a column of counts, none of them negative. */
export function sumOf(name: string, counts: Uint32Array | Int32Array): number {
  let total = 0;
  for (const count of counts) {
    if (count < 0) throw new WireError(`column ${name} holds ${count}`);
    total += count;
  }
  return total;
}
