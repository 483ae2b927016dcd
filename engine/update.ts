// Applies the result of a step: appends sampled tokens, decides which requests are at their end, and
// writes what is new to TokenOutputs. Output for requests that have ended meanwhile is dropped.
import type { ErrorInfo } from '../common/errors.ts';
import type { FinishReason, StepOutput } from '../common/wire/messages.ts';
import { rowFlags, stepFlags, type StepOutputColumns } from '../common/wire/step.ts';
import type { Request } from './request.ts';
import type { Scheduler } from './scheduler.ts';
import type { StepRecord } from './steps-in-flight.ts';
import type { TokenOutputsBuilder } from './token-outputs.ts';

const invalidLogits: ErrorInfo = {
  code: 'invalid_logits',
  message: 'the model produced logits that are not numbers',
};
/** Bad words of several tokens may take away what else is allowed, in the midst of a text. */
const noTokenLeft: ErrorInfo = {
  code: 'bad_request',
  message: 'allowed_token_ids and bad_words left no token, or the logits were not numbers',
  param: 'allowed_token_ids',
};
const badToken: ErrorInfo = {
  code: 'internal',
  message: 'the worker sampled no token of the vocabulary',
};

export class Updater {
  onEnd: ((request: Request) => void) | null = null;
  onToken: ((request: Request) => void) | null = null;
  numGenerationTokens = 0;
  numPromptTokens = 0;
  /** Of numPromptTokens, those found in the prefix cache. */
  numCachedPromptTokens = 0;
  numInvalidLogits = 0;
  private readonly scheduler: Scheduler;
  private readonly outputs: TokenOutputsBuilder;
  private readonly vocabSize: number;
  /** Next entry of the step's logprob columns, which follow batch order, and of its alternatives. */
  private logprobAt = 0;
  private topAt = 0;
  private promptLogprobAt = 0;
  private promptTopAt = 0;

  constructor(scheduler: Scheduler, outputs: TokenOutputsBuilder, vocabSize: number) {
    this.scheduler = scheduler;
    this.outputs = outputs;
    this.vocabSize = vocabSize;
  }

  /** `output` is the result of `record`, the oldest step in flight, which retires here. */
  update(record: StepRecord, output: StepOutput): void {
    this.logprobAt = this.topAt = 0;
    this.promptLogprobAt = this.promptTopAt = 0;
    for (let i = 0; i < record.numRows; i++) {
      const request = record.requests[i]!;
      if (request.state !== 'ended') this.updateRow(request, i, record.flags[i]!, output);
    }
    this.scheduler.retire(record.step);
  }

  private updateRow(request: Request, index: number, flags: number, output: StepOutput): void {
    const { columns } = output;
    if (columns.rowFlags[index]! & rowFlags.nan) {
      // Whoever would hit these blocks would get the same NaN.
      this.scheduler.kv.unregister(request);
      const { allowedTokenIds, badWords } = request.sampling;
      const mayBeTheirs = allowedTokenIds !== null && badWords.some((word) => word.length > 1);
      if (!mayBeTheirs) this.numInvalidLogits++;
      this.end(request, mayBeTheirs ? noTokenLeft : invalidLogits);
      return;
    }
    const sampled = (flags & stepFlags.sample) !== 0;
    if (sampled && !this.addToken(request, index, output)) return;
    if (flags & stepFlags.promptLogprobs) this.addPromptLogprobs(request, index, sampled, output);
    if (sampled) this.settle(request);
  }

  /** False if the request has ended with an error instead. */
  private addToken(request: Request, index: number, output: StepOutput): boolean {
    const { columns } = output;
    const id = columns.tokenId[index]!;
    request.numPlaceholders--;
    if (id < 0 || id >= this.vocabSize) {
      this.end(request, badToken);
      return false;
    }
    request.append(id);
    this.numGenerationTokens++;
    if (request.numOutputTokens === 1) {
      this.numPromptTokens += request.numPromptTokens;
      this.numCachedPromptTokens += request.numCachedTokens;
    }
    this.onToken?.(request);
    request.finishReason = this.endOf(request, id);
    this.outputs.token(
      request,
      id,
      request.finishReason,
      request.finishReason === 'stop' ? id : -1,
    );
    if (request.sampling.logprobs !== null) this.addLogprobs(request, index, id, columns);
    return true;
  }

  /** What the token just appended ends the request with. */
  private endOf(request: Request, id: number): FinishReason {
    const { sampling, numPromptTokens, numTokens } = request;
    const mayStop = request.numOutputTokens >= sampling.minTokens;
    const repeats = request.repetition?.add(request.tokenIds, numPromptTokens, numTokens) ?? false;
    if (mayStop && request.stopIds.includes(id)) return 'stop';
    if (numTokens >= request.maxNumTokens) return 'length';
    return mayStop && repeats ? 'repetition' : 'none';
  }

  private addLogprobs(request: Request, index: number, id: number, c: StepOutputColumns): void {
    for (; c.logprobIndex[this.logprobAt]! < index; this.logprobAt++)
      this.topAt += c.topCount[this.logprobAt]!;
    if (c.logprobIndex[this.logprobAt] !== index) return;
    const areBest = request.sampling.logprobTokenIds === null;
    this.outputs.logprobs(c, id, this.logprobAt, this.topAt, areBest);
  }

  private addPromptLogprobs(
    request: Request,
    index: number,
    hasRow: boolean,
    { columns }: StepOutput,
  ): void {
    const { promptLogprobIndex, promptLogprobPosition, promptTopCount } = columns;
    for (; promptLogprobIndex[this.promptLogprobAt]! <= index; this.promptLogprobAt++) {
      const at = this.promptLogprobAt;
      const top = this.promptTopAt;
      this.promptTopAt += promptTopCount[at]!;
      if (promptLogprobIndex[at]! < index) continue;
      const position = promptLogprobPosition[at]!;
      // Computed again after a preemption: they are sent once.
      if (position < request.nextPromptLogprob || position >= request.numPromptTokens) continue;
      if (!hasRow) this.outputs.row(request, 'none');
      hasRow = true;
      const id = request.tokenIds[position]!;
      this.outputs.promptLogprobs(columns, id, at, top);
      request.nextPromptLogprob = position + 1;
    }
  }

  /** A request at its end leaves; what it has filled stays in the prefix cache. */
  private settle(request: Request): void {
    if (request.finishReason === 'none') return;
    // The device saw the end too and will not compute the last token.
    if (request.state === 'running') this.scheduler.kv.registerFull(request, request.numTokens - 1);
    this.scheduler.end(request);
    this.onEnd?.(request);
  }

  private end(request: Request, error: ErrorInfo): void {
    request.finishReason = 'error';
    this.outputs.row(request, 'error', error);
    this.scheduler.end(request);
    this.onEnd?.(request);
  }
}
