// The table of a StepInput body: for each column, in the order of common/wire/step.ts, its byte
// offset and element count. Every backend gets it with the body.
import { KernelError } from '../common/errors.ts';
import { columnTypes } from '../common/wire/columns.ts';
import { stepInputColumns, type StepInputColumns } from '../common/wire/step.ts';

const elementBytes = Object.values(stepInputColumns).map(
  (type) => columnTypes[type].BYTES_PER_ELEMENT,
);
const columnNames = Object.keys(stepInputColumns) as (keyof StepInputColumns)[];
export const numStepInputColumns = columnNames.length;

/** Throws KernelError if a column does not lie within the body at an offset of its alignment. */
export function checkStepTable(body: Uint8Array, table: Int32Array): void {
  if (table.length !== numStepInputColumns * 2)
    throw new KernelError(`step table has ${table.length} numbers, not ${numStepInputColumns * 2}`);
  if (body.byteOffset % 8 !== 0) throw new KernelError('step body is not 8-byte aligned');
  for (let i = 0; i < numStepInputColumns; i++) {
    const offset = table[2 * i]!;
    const count = table[2 * i + 1]!;
    if (
      offset < 0 ||
      count < 0 ||
      offset % 8 !== 0 ||
      offset + count * elementBytes[i]! > body.length
    )
      throw new KernelError(`step column ${i} lies outside the body`);
  }
}

/**
 * The columns of one received message as body and table; they are views of one frame, but for those
 * without elements, which may be anywhere.
 */
export function stepBody(columns: StepInputColumns): { body: Uint8Array; table: Int32Array } {
  const table = new Int32Array(numStepInputColumns * 2);
  let buffer: ArrayBufferLike | null = null;
  let start = Infinity;
  let end = 0;
  for (const name of columnNames) {
    const { length, buffer: itsBuffer, byteOffset, byteLength } = columns[name];
    if (length === 0) continue;
    buffer ??= itsBuffer;
    if (itsBuffer !== buffer) throw new KernelError('step columns are not views of one frame');
    start = Math.min(start, byteOffset);
    end = Math.max(end, byteOffset + byteLength);
  }
  if (buffer === null) return { body: new Uint8Array(0), table };
  columnNames.forEach((name, i) => {
    const { length, byteOffset } = columns[name];
    if (length === 0) return;
    table[2 * i] = byteOffset - start;
    table[2 * i + 1] = length;
  });
  return { body: new Uint8Array(buffer, start, end - start), table };
}
