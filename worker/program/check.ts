// Checks a finished program against the op table: argument shapes unify by letter, dtypes fit, and
// no buffer is read after another that overlaps it was written, by this rank or by others. A
// failure is a fault of ours in a model or a pass and names op and argument.
import type { ArgSpec } from '../../kernels/ops.ts';
import {
  argSpecs,
  dtypeBytes,
  mostRows,
  type ArgRef,
  type BufferSpec,
  type Op,
  type Program,
} from '../../kernels/program.ts';
import { isCollective, readByOthers } from './graph.ts';

export function checkProgram(program: Program): void {
  program.ops.forEach((op, index) => checkShapes(program, op, `op ${index} ${op.op}`));
  checkLifetimes(program);
}

type Size = number | string;
type Letters = Map<string, Size>;

/** The shapes of the op table that are no single letter. */
const compound: Readonly<Record<string, (letters: Letters) => number | undefined>> = {
  '(Q+2G)*D': (l) => of(l, (q, g, d) => (q + 2 * g) * d, 'Q', 'G', 'D'),
  'Q*D': (l) => of(l, (q, d) => q * d, 'Q', 'D'),
  'D/2': (l) => of(l, (d) => d / 2, 'D'),
  '2I': (l) => of(l, (i) => 2 * i, 'I'),
};

function of(
  letters: Letters,
  compute: (...sizes: [number, number, number]) => number,
  ...names: string[]
): number | undefined {
  const sizes = names.map((name) => letters.get(name));
  if (!sizes.every((size) => typeof size === 'number')) return undefined;
  return compute(...(sizes as [number, number, number]));
}

function checkShapes(program: Program, op: Op, where: string): void {
  const letters: Letters = new Map<string, Size>([['T', 'numTokens']]);
  if (['gatherLogitRows', 'sample', 'sampleSharded'].includes(op.op)) letters.set('L', 'numLogits');
  for (const [attr, letter] of [
    ['numHeads', 'Q'],
    ['numKvHeads', 'G'],
    ['headDim', 'D'],
  ] as const)
    if (attr in op.attrs) letters.set(letter, op.attrs[attr]!);
  const specs = argSpecs(op.op);
  for (const name in op.args)
    if (!(name in specs)) throw new Error(`${where}: unknown argument ${name}`);
  for (const name in specs) {
    const ref = op.args[name];
    if (ref) checkArg(program, ref, specs[name]!, letters, `${where}: ${name}`);
    else if (!specs[name]!.optional) throw new Error(`${where}: ${name} is missing`);
  }
}

function checkArg(
  program: Program,
  ref: ArgRef,
  spec: ArgSpec,
  letters: Letters,
  where: string,
): void {
  if ('weight' in ref !== (spec.role === 'weight'))
    throw new Error(`${where} must ${spec.role === 'weight' ? '' : 'not '}be a weight`);
  const { shape, dtype } =
    'weight' in ref ? program.weights[ref.weight]! : bufferShape(program.buffers[ref.buffer]!);
  const isLogits = spec.dtype === 'act' && dtype === 'f32';
  const expected = spec.dtype === 'act' ? program.actDtype : spec.dtype;
  if (spec.dtype !== 'w' && dtype !== expected && !isLogits)
    throw new Error(`${where} is ${dtype}, not ${expected}`);
  if (shape.length !== spec.shape.length)
    throw new Error(`${where} has ${shape.length} dimensions, not ${spec.shape.length}`);
  spec.shape.forEach((letter, axis) => {
    const actual = shape[axis]!;
    const bound = letter in compound ? compound[letter]!(letters) : letters.get(letter);
    if (bound === undefined) letters.set(letter, actual);
    else if (bound !== actual) throw new Error(`${where}: ${letter} is ${actual}, not ${bound}`);
  });
}

function bufferShape({ rows, columns, dtype }: BufferSpec): {
  shape: readonly Size[];
  dtype: BufferSpec['dtype'];
} {
  return { shape: [rows, columns], dtype };
}

/** Runs through the ops and keeps account of which buffers still hold what was written to them. */
function checkLifetimes(program: Program): void {
  const { buffers, ops } = program;
  const holds = new Set<number>();
  const tail = ops.findIndex((op) => op.op === 'gatherLogitRows');
  // The tail runs twice, as a backend may do; see planArena.
  const order = tail < 0 ? ops : [...ops, ...ops.slice(tail)];
  // What other ranks may still read: of the last collective. They have when the tail runs again.
  let shown: BufferSpec[] = [];
  order.forEach((op, index) => {
    if (index === ops.length) shown = [];
    const written: number[] = [];
    const specs = argSpecs(op.op);
    for (const name in op.args) {
      const ref = op.args[name]!;
      if ('weight' in ref) continue;
      const { role } = specs[name]!;
      if (role !== 'out' && !holds.has(ref.buffer))
        throw new Error(`op ${index} ${op.op}: ${name} was overwritten before it is read`);
      if (role !== 'in') written.push(ref.buffer);
    }
    const showing = readByOthers(op.op).map(
      (name) => buffers[(op.args[name] as { buffer: number }).buffer]!,
    );
    for (const buffer of written) {
      const others = [...shown, ...showing.filter((spec) => spec !== buffers[buffer])];
      if (others.some((spec) => overlap(program, buffers[buffer]!, spec)))
        throw new Error(`op ${index} ${op.op} overwrites what other ranks may be reading`);
      for (const other of [...holds])
        if (overlap(program, buffers[buffer]!, buffers[other]!)) holds.delete(other);
      holds.add(buffer);
    }
    if (isCollective(op.op)) shown = showing;
  });
}

function overlap(program: Program, a: BufferSpec, b: BufferSpec): boolean {
  return a.offset < b.offset + bytesOf(program, b) && b.offset < a.offset + bytesOf(program, a);
}

function bytesOf(program: Program, buffer: BufferSpec): number {
  return mostRows(program, buffer) * buffer.columns * dtypeBytes[buffer.dtype];
}
