// Resolves a program's arguments to memory: buffers to their place in one arena, weights to widened
// arrays. The arena holds every element as f32, at the planned offsets, so that a fault of the
// planner is a fault here too.
import type { WeightPart } from '../backend.ts';
import { dtypeBytes, mostRows, type Op, type Program, type WeightSpec } from '../program.ts';
import type { BoundOp, BoundTensor } from './bound-op.ts';
import { widen } from './float-formats.ts';

export function bindOps(program: Program, weights: readonly Float32Array[]): BoundOp[] {
  // Elements of two bytes take four here: offsets are counted in elements of the smallest dtype.
  const elementBytes = Math.min(4, ...program.buffers.map(({ dtype }) => dtypeBytes[dtype]));
  const arena = new Float32Array(program.arenaBytes / elementBytes);
  const buffers = program.buffers.map((buffer): BoundTensor => {
    const { dtype, rows, columns, offset, rowsAtOnce } = buffer;
    if (rowsAtOnce !== undefined) throw new Error('reference runs an op for all rows of a step');
    const start = offset / elementBytes;
    const size = mostRows(program, buffer) * columns;
    return { data: arena.subarray(start, start + size), rows, columns, dtype };
  });
  return program.ops.map((op) => bindOp(program, op, buffers, weights));
}

function bindOp(
  program: Program,
  op: Op,
  buffers: readonly BoundTensor[],
  weights: readonly Float32Array[],
): BoundOp {
  const tensors: Record<string, BoundTensor> = {};
  const bound: Record<string, Float32Array> = {};
  for (const name in op.args) {
    const ref = op.args[name]!;
    if ('buffer' in ref) tensors[name] = buffers[ref.buffer]!;
    else bound[name] = weights[ref.weight]!;
  }
  return { tensors, weights: bound, attrs: op.attrs, interleave: interleaveOf(program, op) };
}

/** The columns of gateUp alternate as the rows of the weight that made them. */
function interleaveOf(program: Program, { op, args }: Op): number {
  const gateUp = args['gateUp'];
  if (op !== 'siluAndMul' || !gateUp || !('buffer' in gateUp)) return 0;
  const writer = program.ops.find(
    (other) =>
      other.args['out'] &&
      'buffer' in other.args['out'] &&
      other.args['out'].buffer === gateUp.buffer,
  );
  const ref = writer?.args['weight'];
  return ref && 'weight' in ref ? program.weights[ref.weight]!.interleave : 0;
}

/**
 * A weight's parts as f32 in shared memory, stacked, zeros behind rows that are too short, its
 * halves interleaved if it says so.
 */
export function prepareWeight(spec: WeightSpec, parts: readonly WeightPart[]): Float32Array {
  const size = spec.shape.reduce((product, n) => product * n, 1);
  const result = new Float32Array(new SharedArrayBuffer(size * 4));
  if (spec.constant) result.set(spec.constant);
  const [, columns = 1] = spec.shape;
  let position = 0;
  for (const part of parts) {
    if (part.rowBytes === undefined && part.numColumns === columns)
      result.set(widen(part.dtype, part.data), position);
    else
      rowsOf(part).forEach((values, row) => {
        result.set(values, position + row * columns);
      });
    position += part.numRows * columns;
  }
  return spec.interleave > 0 ? interleave(result, spec) : result;
}

function rowsOf({ dtype, numRows, numColumns, rowBytes, data }: WeightPart): Float32Array[] {
  const bytes = numColumns * dtypeBytes[dtype];
  const step = rowBytes ?? bytes;
  return Array.from({ length: numRows }, (_, row) =>
    widen(dtype, data.subarray(row * step, row * step + bytes)),
  );
}

/** Gate rows, then up rows -> groups of `interleave` gate rows and as many up rows. */
function interleave(values: Float32Array, { shape, interleave: group }: WeightSpec): Float32Array {
  const columns = shape[1] ?? 1;
  const half = shape[0]! / 2;
  const result = new Float32Array(new SharedArrayBuffer(values.byteLength));
  for (let row = 0; row < shape[0]!; row++) {
    const inHalf = row % half;
    const at = Math.floor(inHalf / group) * 2 * group + (inHalf % group) + (row < half ? 0 : group);
    result.set(values.subarray(row * columns, (row + 1) * columns), at * columns);
  }
  return result;
}
