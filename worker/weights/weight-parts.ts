// A rectangle of a tensor as parts for a backend: what the tensor has of it as a view of its bytes,
// and zeros for rows and columns beyond its end.
import type { WeightPart } from '../../kernels/backend.ts';
import { dtypeBytes, type Dtype, type WeightSource } from '../../kernels/program.ts';

/** `view`: bytes [begin, end) of the tensor, whose elements are of `dtype`. */
export function partsOf(
  { tensorShape, rowStart, numRows, columnStart, numColumns: wanted }: WeightSource,
  dtype: Dtype,
  view: (begin: number, end: number) => Uint8Array,
): WeightPart[] {
  const [tensorRows = 0, tensorColumns = 1] = tensorShape;
  const elementBytes = dtypeBytes[dtype];
  const numColumns = within(wanted, tensorColumns - columnStart);
  const numPresent = numColumns > 0 ? within(numRows, tensorRows - rowStart) : 0;
  const parts: WeightPart[] = [];
  if (numPresent > 0) {
    const begin = (rowStart * tensorColumns + columnStart) * elementBytes;
    const rowBytes = tensorColumns * elementBytes;
    const data = view(begin, begin + (numPresent - 1) * rowBytes + numColumns * elementBytes);
    const part = { dtype, numRows: numPresent, numColumns, data };
    parts.push(numColumns < tensorColumns ? { ...part, rowBytes } : part);
  }
  const numMissing = numRows - numPresent;
  // Columns beyond a part's own are zeros anyway: one is enough to say how many rows there are.
  if (numMissing > 0)
    parts.push({
      dtype,
      numRows: numMissing,
      numColumns: 1,
      data: new Uint8Array(numMissing * elementBytes),
    });
  return parts;
}

const within = (count: number, most: number) => Math.max(0, Math.min(count, most));
