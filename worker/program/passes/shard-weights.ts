// A rank's rows or columns of a weight, by ranges of its checkpoint tensor. The same part of the
// same weight is one object, so that tied weights stay tied.
import type { WeightSource } from '../../../kernels/program.ts';
import type { Weight } from '../graph.ts';

/** Rows or columns [start, start + count) of a whole; those beyond its end are zeros. */
export interface Range {
  readonly start: number;
  readonly count: number;
}

const known = new WeakMap<Weight, Map<string, Weight>>();

/** The rows of all ranges, one after another. */
export function rowsOfWeight(weight: Weight, ranges: readonly Range[]): Weight {
  const count = ranges.reduce((sum, range) => sum + range.count, 0);
  return partOf(weight, 'rows', ranges, [count, ...weight.shape.slice(1)], (source) =>
    ranges.map((range) => ({ ...source, rowStart: range.start, numRows: range.count })),
  );
}

export function columnsOfWeight(weight: Weight, range: Range): Weight {
  return partOf(weight, 'columns', [range], [weight.shape[0]!, range.count], (source) => [
    { ...source, columnStart: range.start, numColumns: range.count },
  ]);
}

function partOf(
  weight: Weight,
  what: string,
  ranges: readonly Range[],
  shape: readonly number[],
  cut: (source: WeightSource) => readonly WeightSource[],
): Weight {
  const key = [what, ...ranges.map(({ start, count }) => `${start} ${count}`)].join(' ');
  let parts = known.get(weight);
  if (!parts) known.set(weight, (parts = new Map<string, Weight>()));
  let found = parts.get(key);
  if (!found) {
    const [source, ...others] = weight.sources;
    if (!source || others.length > 0) throw new Error(`${weight.name} is no whole tensor`);
    parts.set(key, (found = { ...weight, shape, sources: cut(source) }));
  }
  return found;
}
