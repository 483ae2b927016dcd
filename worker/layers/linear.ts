// A linear layer by its name in the checkpoint.
import type { Tensor } from '../program/graph.ts';
import type { Recorder } from '../program/recorder.ts';

/** x: [M, K] -> [M, numColumns] */
export function linear(
  m: Recorder,
  x: Tensor,
  name: string,
  numColumns: number,
  hasBias = false,
): Tensor {
  const weight = m.weight(`${name}.weight`, numColumns, x.columns);
  return m.linear(x, weight, hasBias ? m.weight(`${name}.bias`, numColumns) : null);
}
