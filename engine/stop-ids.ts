// Which token ids end a text: one rule for the door, the worker's rows and the engine's update.
import type { SamplingParams } from '../common/sampling-params.ts';

/** The model's EOS ids, unless the request ignores them, and the request's own. */
export function stopIdsOf(
  { ignoreEos, stopTokenIds }: Pick<SamplingParams, 'ignoreEos' | 'stopTokenIds'>,
  eosTokenIds: readonly number[],
): readonly number[] {
  if (ignoreEos) return stopTokenIds;
  return stopTokenIds.length === 0 ? eosTokenIds : [...eosTokenIds, ...stopTokenIds];
}
