// A program as text, one line an op: for tests, logs and eyes.
import type { ArgRef, Program } from '../../kernels/program.ts';

export function printProgram(program: Program): string {
  const show = (ref: ArgRef): string => {
    if ('buffer' in ref) return `%${ref.buffer}`;
    const { name, dtype, shape, interleave } = program.weights[ref.weight]!;
    return `${name}[${shape.join(',')}] ${dtype}${interleave ? ` interleave ${interleave}` : ''}`;
  };
  const lines = program.ops.map(({ op, args, attrs }) => {
    const { out, ...rest } = args;
    const inputs = Object.entries(rest).map(([name, ref]) => `${name}=${show(ref)}`);
    const numbers = Object.entries(attrs).map(([name, value]) => `${name}=${value}`);
    const call = `${op}(${[...inputs, ...numbers].join(', ')})`;
    if (!out || !('buffer' in out)) return call;
    const { rows, columns, dtype } = program.buffers[out.buffer]!;
    return `${show(out)}[${rows},${columns}] ${dtype} = ${call}`;
  });
  return `${lines.join('\n')}\n`;
}
