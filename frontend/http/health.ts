// GET /health and /ping: whether a request that came now would be served. Read from what is known,
// never by asking the engine.
import { RequestError } from '../../common/errors.ts';
import { requireOpenBackend, type HttpContext } from './context.ts';

/** Work that stands still for this long is not healthy. */
const stalledAfterMs = 5000;

/** Throws RequestError (503) with the reason. */
export function checkHealth(context: HttpContext): void {
  const { client } = requireOpenBackend(context);
  if (client.lost) throw new RequestError('engine_lost', 'the engine or the detokenizer is gone');
  if (client.stalledMs >= stalledAfterMs) {
    throw new RequestError('not_ready', 'work is pending but nothing advances');
  }
}
