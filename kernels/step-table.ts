// The table of a StepInput body: for each column, in the order of common/wire/step.ts, its byte
// offset and element count. Every backend gets it with the body.
import { KernelError } from '../common/errors.ts';
import { columnTypes } from '../common/wire/columns.ts';
import { stepInputColumns, type StepInputColumns } from '../common/wire/step.ts';

const elementBytes = Object.values(stepInputColumns).map(
  (type) => columnTypes[type].BYTES_PER_ELEMENT,
);
export const numStepInputColumns = elementBytes.length;

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

/** The columns of one received message as body and table; they are views of one frame. */
export function stepBody(columns: StepInputColumns): { body: Uint8Array; table: Int32Array } {
  const views = Object.keys(stepInputColumns).map(
    (name) => columns[name as keyof StepInputColumns],
  );
  const { buffer } = views[0]!;
  let start = Infinity;
  let end = 0;
  for (const view of views) {
    if (view.buffer !== buffer) throw new KernelError('step columns are not views of one frame');
    start = Math.min(start, view.byteOffset);
    end = Math.max(end, view.byteOffset + view.byteLength);
  }
  const table = new Int32Array(views.length * 2);
  views.forEach((view, i) => {
    table[2 * i] = view.byteOffset - start;
    table[2 * i + 1] = view.length;
  });
  return { body: new Uint8Array(buffer, start, end - start), table };
}
