// The parts of each of a program's weights, out of a checkpoint: names and shapes must be what the
// program expects, exactly.
import { join } from 'node:path';
import { badModel } from '../../common/errors.ts';
import type { WeightPart } from '../../kernels/backend.ts';
import { dtypeBytes, type Dtype, type Program, type WeightSource } from '../../kernels/program.ts';
import type { Checkpoint } from './checkpoint.ts';

/** Throws StartError where they cannot fit, before the backend allocates anything for them. */
export function checkWeightsFit(program: Program, folder: string, memoryBytes: number): void {
  let bytes = 0;
  for (const { dtype, shape } of program.weights)
    bytes += shape.reduce((product, n) => product * n, dtypeBytes[dtype]);
  if (bytes > memoryBytes)
    throw badModel(
      `${join(folder, 'config.json')}: weights of its shape take ${bytes} bytes, this machine has ` +
        String(memoryBytes),
    );
}

const floatDtypes: Readonly<Record<string, Dtype>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Views of the checkpoint's bytes, for BackendLoad. Throws StartError (exit 65). */
export function loadWeights(program: Program, checkpoint: Checkpoint): WeightPart[][] {
  return program.weights.map((weight) =>
    weight.sources.flatMap((source) => loadParts(source, checkpoint)),
  );
}

/** The source's rows as they lie in the file; one more part for rows that the tensor lacks. */
function loadParts(source: WeightSource, checkpoint: Checkpoint): WeightPart[] {
  const { tensorShape: expected, rowStart, numRows, columnStart, numColumns } = source;
  const tensor = checkpoint.get(source.tensor);
  const where = `${tensor.file}: tensor ${tensor.name}`;
  if (tensor.shape.length !== expected.length || expected.some((n, i) => tensor.shape[i] !== n))
    throw badModel(
      `${where} is [${tensor.shape.join(',')}], but config.json makes it [${expected.join(',')}]`,
    );
  const dtype = floatDtypes[tensor.dtype];
  if (!dtype)
    throw badModel(
      `${where} is ${tensor.dtype}; supported: ${Object.keys(floatDtypes).join(', ')}`,
    );
  const columns = expected[1] ?? 1;
  const elementBytes = dtypeBytes[dtype];
  const numPresent = Math.max(0, Math.min(numRows, expected[0]! - rowStart));
  const parts: WeightPart[] = [];
  if (numPresent > 0) {
    const begin = (rowStart * columns + columnStart) * elementBytes;
    const numElements = (numPresent - 1) * columns + numColumns;
    const data = tensor.data.subarray(begin, begin + numElements * elementBytes);
    const part = { dtype, numRows: numPresent, numColumns, data };
    parts.push(numColumns < columns ? { ...part, rowBytes: columns * elementBytes } : part);
  }
  const numMissing = numRows - numPresent;
  const zeros = () => new Uint8Array(numMissing * numColumns * elementBytes);
  if (numMissing > 0) parts.push({ dtype, numRows: numMissing, numColumns, data: zeros() });
  return parts;
}
