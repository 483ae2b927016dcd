// A rank's rows or columns of a weight, by range of its checkpoint tensor. The same part of the same
// weight is one object, so that tied weights stay tied.
import type { Weight } from '../graph.ts';

export interface Range {
  readonly start: number;
  readonly count: number;
}

const known = new WeakMap<Weight, Map<string, Weight>>();

/** Rows [start, start + count); those beyond the last are zeros. */
export function rowsOfWeight(weight: Weight, { start, count }: Range): Weight {
  return partOf(weight, `rows ${start} ${count}`, {
    shape: [count, ...weight.shape.slice(1)],
    range: { rowStart: start, numRows: count },
  });
}

export function columnsOfWeight(weight: Weight, { start, count }: Range): Weight {
  return partOf(weight, `columns ${start} ${count}`, {
    shape: [weight.shape[0]!, count],
    range: { columnStart: start, numColumns: count },
  });
}

function partOf(
  weight: Weight,
  key: string,
  part: { readonly shape: readonly number[]; readonly range: Readonly<Record<string, number>> },
): Weight {
  let parts = known.get(weight);
  if (!parts) known.set(weight, (parts = new Map<string, Weight>()));
  let found = parts.get(key);
  if (!found) {
    const [source, ...others] = weight.sources;
    if (!source || others.length > 0) throw new Error(`${weight.name} is no whole tensor`);
    const sources = [{ ...source, ...part.range }];
    parts.set(key, (found = { ...weight, shape: part.shape, sources }));
  }
  return found;
}
