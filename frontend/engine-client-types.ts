// What EngineClient takes and gives: the one interface under the HTTP server, the LLM class and any
// program that imports vllm-ts/client.
import type { RequestError } from '../common/errors.ts';
import type { SamplingParams, TextParams } from '../common/sampling-params.ts';
import type { FinishReason } from '../common/wire/messages.ts';
import type { LogprobList } from './logprob-list.ts';

export interface GenerateRequest {
  readonly promptTokenIds: Int32Array;
  readonly sampling: SamplingParams;
  readonly text: TextParams;
  /** Choices; each has its own seed (seed + index). */
  readonly n: number;
  readonly priority: number;
  readonly cacheSalt: string | null;
}

/** What is new of one choice. Exactly one output per choice has a finishReason other than 'none'. */
export interface RequestOutput {
  /** Which of the n choices. */
  readonly index: number;
  /** Text since the last output. */
  readonly text: string;
  /** Ids since the last output; empty unless returnTokenIds or logprobs were asked for. */
  readonly tokenIds: Int32Array;
  /** One per id in tokenIds, or null. */
  readonly logprobs: LogprobList | null;
  /** Of the prompt's next tokens, from its `position` on; only in the outputs that bring them. */
  readonly promptLogprobs: LogprobList | null;
  readonly finishReason: FinishReason;
  /** Stop string or stop token id that ended it; 'repetition_detected' with 'repetition'. */
  readonly stopReason: string | number | null;
  /** Set with finishReason 'error'. */
  readonly error: RequestError | null;
  readonly numPromptTokens: number;
  readonly numCachedTokens: number;
  /** So far, of this choice. */
  readonly numOutputTokens: number;
  /** What it took from the choice's credit: give it back with `consumed` once it was taken. */
  readonly creditBytes: number;
}

export interface RequestHandle {
  /** Ends all choices that are still open; their terminal outputs (abort) still come. */
  abort(): void;
  /** The reader has taken outputs of a choice: grants their creditBytes again. */
  consumed(index: number, bytes: number): void;
}
