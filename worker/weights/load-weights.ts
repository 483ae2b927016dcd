// The parts of each of a program's weights, out of a checkpoint: names and shapes must be what the
// program expects, exactly.
import { badModel } from '../../common/json-fields.ts';
import type { WeightPart } from '../../kernels/backend.ts';
import type { Dtype, Program, WeightSource, WeightSpec } from '../../kernels/program.ts';
import type { Checkpoint } from './checkpoint.ts';

const floatDtypes: Readonly<Record<string, Dtype>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Views of the checkpoint's bytes, for BackendLoad. Throws StartError (exit 65). */
export function loadWeights(program: Program, checkpoint: Checkpoint): WeightPart[][] {
  return program.weights.map((weight) =>
    weight.sources.map((source) => loadPart(weight, source, checkpoint)),
  );
}

function loadPart(weight: WeightSpec, source: WeightSource, checkpoint: Checkpoint): WeightPart {
  const tensor = checkpoint.get(source.tensor);
  const where = `${tensor.file}: tensor ${tensor.name}`;
  const expected = [source.numRows, ...weight.shape.slice(1)];
  if (tensor.shape.length !== expected.length || expected.some((n, i) => tensor.shape[i] !== n))
    throw badModel(
      `${where} is [${tensor.shape.join(',')}], but config.json makes it [${expected.join(',')}]`,
    );
  const dtype = floatDtypes[tensor.dtype];
  if (!dtype)
    throw badModel(
      `${where} is ${tensor.dtype}; supported: ${Object.keys(floatDtypes).join(', ')}`,
    );
  return {
    dtype,
    numRows: source.numRows,
    numColumns: weight.shape[1] ?? 1,
    data: tensor.data,
  };
}
