// The parameters of the LLM class: sampling and text settings in one flat object, each optional.
import { RequestError } from '../common/errors.ts';
import {
  defaultSamplingParams,
  defaultTextParams,
  type DefaultSampling,
  type SamplingParams,
  type TextParams,
} from '../common/sampling-params.ts';
import type { GenerateRequest } from './engine-client-types.ts';

export type LlmParams = Partial<
  SamplingParams &
    Pick<
      TextParams,
      'detokenize' | 'includeStopStrInOutput' | 'skipSpecialTokens' | 'spacesBetweenSpecialTokens'
    > & {
      /** Choices a prompt. */
      readonly n: number;
      readonly stop: string | readonly string[];
      readonly priority: number;
      readonly cacheSalt: string | null;
    }
>;

const textNames = [
  'detokenize',
  'stop',
  'includeStopStrInOutput',
  'skipSpecialTokens',
  'spacesBetweenSpecialTokens',
] as const;

const isText = (name: string) => (textNames as readonly string[]).includes(name);
const isSampling = (name: string) => Object.hasOwn(defaultSamplingParams, name);

/** For who writes max_tokens, as the HTTP API does. */
function hint(name: string): string {
  const here = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return isText(here) || isSampling(here) ? `: here it is ${here}` : '';
}

/** Throws RequestError on a name that is no parameter; values are judged by the engine. */
export function makeRequest(
  promptTokenIds: Int32Array,
  params: LlmParams,
  defaults: DefaultSampling,
): GenerateRequest {
  const { n = 1, priority = 0, cacheSalt = null, ...rest } = params;
  const sampling: Record<string, unknown> = { ...defaultSamplingParams, ...defaults };
  const text: Record<string, unknown> = { ...defaultTextParams, finalOnly: true };
  for (const [name, value] of Object.entries(rest as Readonly<Record<string, unknown>>)) {
    // As if it were not there: that is how a program hands on what it was not given itself.
    if (value === undefined) continue;
    if (name === 'stop' && typeof value === 'string') text[name] = [value];
    else if (isText(name)) text[name] = value;
    else if (isSampling(name)) sampling[name] = value;
    else throw new RequestError('bad_request', `${name} is not a parameter${hint(name)}`, name);
  }
  return {
    promptTokenIds,
    sampling: sampling as unknown as SamplingParams,
    // Ids always come: an offline caller has no other use for the credit.
    text: { ...(text as unknown as TextParams), returnTokenIds: true },
    n,
    priority,
    cacheSalt,
  };
}
