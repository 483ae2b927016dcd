// A column from plain numbers.
import { columnTypes, type Column, type ColumnType } from '../../../common/wire/columns.ts';

export function makeColumn(type: ColumnType, list: readonly number[]): Column {
  if (type === 'u64') return BigUint64Array.from(list, BigInt);
  const Type = columnTypes[type] as unknown as { from(list: readonly number[]): Column };
  return Type.from(list);
}
