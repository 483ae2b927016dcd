import { defaultSamplingParams, defaultTextParams } from '../../common/sampling-params.ts';
import { Request, type RequestOptions } from '../../engine/request.ts';

/** A request with what matters to the test. */
export function makeRequest(options: Partial<RequestOptions> = {}): Request {
  return new Request({
    frontendId: 1,
    requestId: 1,
    arrival: 0,
    promptTokenIds: Int32Array.of(1, 2),
    sampling: defaultSamplingParams,
    text: defaultTextParams,
    priority: 0,
    cacheSalt: null,
    stopIds: [],
    seed: 0n,
    maxNumTokens: 100,
    leader: null,
    ...options,
  });
}
