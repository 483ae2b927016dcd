// The parts of each of a program's weights, out of a checkpoint: names and shapes must be what the
// program expects, exactly.
import { join } from 'node:path';
import { badModel } from '../../common/errors.ts';
import type { WeightPart } from '../../kernels/backend.ts';
import { dtypeBytes, type Dtype, type Program, type WeightSource } from '../../kernels/program.ts';
import type { Checkpoint } from './checkpoint.ts';
import { partsOf } from './weight-parts.ts';

/** As the backend keeps them: this rank's part. */
export function weightBytes({ weights }: Program): number {
  const bytes = weights.map(({ dtype, shape }) =>
    shape.reduce((product, n) => product * n, dtypeBytes[dtype]),
  );
  return bytes.reduce((sum, n) => sum + n, 0);
}

/** Throws StartError where they cannot fit, before the backend allocates anything for them. */
export function checkWeightsFit(program: Program, folder: string, memoryBytes: number): void {
  const bytes = weightBytes(program);
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

function loadParts(source: WeightSource, checkpoint: Checkpoint): WeightPart[] {
  const { tensorShape: expected } = source;
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
  return partsOf(source, dtype, (begin, end) => tensor.data.subarray(begin, end));
}
