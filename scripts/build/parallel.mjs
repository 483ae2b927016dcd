// Work for as many hands as there are cores.
import { availableParallelism } from 'node:os';

/** After a failure nothing new begins, and what has begun ends before the failure is thrown. */
export async function inParallel(items, action) {
  const pending = [...items];
  const work = async () => {
    try {
      for (let item = pending.shift(); item !== undefined; item = pending.shift()) await action(item);
    } catch (error) {
      pending.length = 0;
      throw error;
    }
  };
  const hands = Array.from({ length: Math.min(availableParallelism(), 8) }, work);
  const failed = (await Promise.allSettled(hands)).find(({ status }) => status === 'rejected');
  if (failed) throw failed.reason;
}
