// A request's knobs below the API: what the engine and the worker need to know to run it, and what
// the detokenizer needs to render it. Ranges are checked where strangers write: in the HTTP schema
// and, for foreign frontends, at the engine's door.

/**
 * "Above 0, finite", with room for what becomes of a logit: product and quotient stay finite in f32.
 */
export const repetitionPenaltyRange = [1e-30, 1e30] as const;

/** Sampling, per request. Defaults are vLLM's. */
export interface SamplingParams {
  /** [0, 2]; below 1e-5 is greedy. */
  readonly temperature: number;
  /** (0, 1]; 1 = off. */
  readonly topP: number;
  /** 0 = off. */
  readonly topK: number;
  /** [0, 1]; 0 = off. */
  readonly minP: number;
  /** [-2, 2] */
  readonly presencePenalty: number;
  /** [-2, 2] */
  readonly frequencyPenalty: number;
  /** Above 0 (repetitionPenaltyRange); 1 = off. */
  readonly repetitionPenalty: number;
  /** Unsigned 64-bit; null is drawn at admission and kept. Child i of n uses seed + i. */
  readonly seed: number | bigint | null;
  /** Output tokens at most; null = as many as the context holds. */
  readonly maxTokens: number | null;
  readonly minTokens: number;
  readonly stopTokenIds: readonly number[];
  readonly ignoreEos: boolean;
  /** null = none, else 0..maxLogprobs alternatives. */
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
  /** With logprobs: these ids (at most 128) are the alternatives, whatever is most likely. */
  readonly logprobTokenIds: readonly number[] | null;
  /** null = off; values within [-100, 100]. */
  readonly logitBias: {
    readonly ids: readonly number[];
    readonly values: readonly number[];
  } | null;
  readonly allowedTokenIds: readonly number[] | null;
  /** Token id runs that must not be completed. */
  readonly badWords: readonly (readonly number[])[];
  /** null = off. */
  readonly repetitionDetection: RepetitionDetection | null;
}

/** Ends a request whose last output tokens are one pattern, minCount times in a row. */
export interface RepetitionDetection {
  /** Tokens of the pattern: minPatternSize..maxPatternSize, from 1 to maxPatternTokens. */
  readonly minPatternSize: number;
  readonly maxPatternSize: number;
  /** 2 or more. */
  readonly minCount: number;
}

/** Lowest temperature that is sampled with: logits divided by less lose their order. */
export const minTemperature = 0.01;

/** Temperature 0, or so near it that nothing but the best token would come. */
export function isGreedy({ temperature }: Pick<SamplingParams, 'temperature'>): boolean {
  return temperature < 1e-5;
}

export const maxPatternTokens = 1024;

export const defaultSamplingParams: SamplingParams = {
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  seed: null,
  maxTokens: 16,
  minTokens: 0,
  stopTokenIds: [],
  ignoreEos: false,
  logprobs: null,
  promptLogprobs: null,
  logprobTokenIds: null,
  logitBias: null,
  allowedTokenIds: null,
  badWords: [],
  repetitionDetection: null,
};

/** Defaults of the served model, where they differ from `defaultSamplingParams`. */
export type DefaultSampling = Partial<
  Pick<SamplingParams, 'temperature' | 'topP' | 'topK' | 'minP' | 'repetitionPenalty' | 'maxTokens'>
>;

/** How a request's tokens become text; rides to the detokenizer with its first TokenOutputs. */
export interface TextParams {
  /** false: token ids only, `stop` must be empty. */
  readonly detokenize: boolean;
  readonly stop: readonly string[];
  readonly includeStopStrInOutput: boolean;
  readonly skipSpecialTokens: boolean;
  readonly spacesBetweenSpecialTokens: boolean;
  /** Token ids ride in TextOutputs beside the text. */
  readonly returnTokenIds: boolean;
  /** Deltas are sent for the first token, when this many more are pending, and at the end. */
  readonly streamInterval: number;
  /** One message at the end instead of deltas. */
  readonly finalOnly: boolean;
  /** Credit of this request: bytes of text that may be sent ahead of the reader. */
  readonly creditBytes: number;
}

export const defaultTextParams: TextParams = {
  detokenize: true,
  stop: [],
  includeStopStrInOutput: false,
  skipSpecialTokens: true,
  spacesBetweenSpecialTokens: true,
  returnTokenIds: false,
  streamInterval: 1,
  finalOnly: false,
  creditBytes: 256 * 1024,
};
