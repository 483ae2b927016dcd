// Builds TokenOutputs, the columns that go to the detokenizer: a row for each request that has new
// tokens, prompt logprobs or its end. Reused message after message.
import type { ErrorInfo } from '../common/errors.ts';
import {
  finishReasons,
  tokenOutputsColumns,
  type FinishReason,
  type NewTextRequest,
  type TokenOutputs,
} from '../common/wire/messages.ts';
import { clearColumns, makeGrowing, viewColumns } from '../common/wire/growing-columns.ts';
import type { StepOutputColumns } from '../common/wire/step.ts';
import type { Request } from './request.ts';

/** Ids of the prompt's end that the detokenizer gets as context for the first token. */
const numContextIds = 16;

export class TokenOutputsBuilder {
  numRows = 0;
  private readonly columns = makeGrowing(tokenOutputsColumns);
  private newRequests: NewTextRequest[] = [];
  private errors: { row: number; error: ErrorInfo }[] = [];

  /** A row with the request's end, or without tokens ('none') to hang prompt logprobs on. */
  row(request: Request, finishReason: FinishReason, error: ErrorInfo | null = null): void {
    const c = this.columns;
    if (!request.announced) this.announce(request);
    if (error) this.errors.push({ row: this.numRows, error });
    c.frontendId.push(request.frontendId);
    c.requestId.push(request.requestId);
    c.tokenStart.push(c.tokenIds.length);
    c.finishReason.push(finishReasons.indexOf(finishReason));
    c.stopTokenId.push(-1);
    c.numCachedTokens.push(Math.max(request.numCachedTokens, 0));
    this.numRows++;
  }

  /** A row with one new token. */
  token(request: Request, id: number, finishReason: FinishReason, stopTokenId: number): void {
    this.row(request, finishReason);
    this.columns.stopTokenId.setLast(stopTokenId);
    this.columns.tokenIds.push(id);
    this.columns.logprobCount.push(0);
  }

  /**
   * Logprobs of the token just added: entry `at` of the step's, whose alternatives begin at `top`.
   * They are the best ids, or those that the request named: of these no rank is known.
   */
  logprobs(output: StepOutputColumns, id: number, at: number, top: number, areBest: boolean): void {
    const c = this.columns;
    const num = output.topCount[at]!;
    c.logprobCount.setLast(num + 1);
    c.logprobIds.push(id);
    c.logprobs.push(output.logprob[at]!);
    c.logprobRanks.push(output.logprobRank[at]!);
    for (let k = 0; k < num; k++) {
      c.logprobIds.push(output.topIds[top + k]!);
      c.logprobs.push(output.topLogprobs[top + k]!);
      c.logprobRanks.push(areBest ? k + 1 : 0);
    }
  }

  /** Logprobs of prompt token `id`, for the row just added; as above. */
  promptLogprobs(output: StepOutputColumns, id: number, at: number, top: number): void {
    const c = this.columns;
    const num = output.promptTopCount[at]!;
    c.promptLogprobRow.push(this.numRows - 1);
    c.promptLogprobPosition.push(output.promptLogprobPosition[at]!);
    c.promptLogprobCount.push(num + 1);
    c.promptLogprobIds.push(id);
    c.promptLogprobs.push(output.promptLogprob[at]!);
    c.promptLogprobRanks.push(output.promptLogprobRank[at]!);
    for (let k = 0; k < num; k++) {
      c.promptLogprobIds.push(output.promptTopIds[top + k]!);
      c.promptLogprobs.push(output.promptTopLogprobs[top + k]!);
      c.promptLogprobRanks.push(k + 1);
    }
  }

  /** The message, valid until the next row is added, which begins a new one. */
  take(step: number, generation: number): TokenOutputs {
    this.columns.tokenStart.push(this.columns.tokenIds.length);
    const message: TokenOutputs = {
      kind: 'tokenOutputs',
      step,
      generation,
      newRequests: this.newRequests,
      errors: this.errors,
      columns: viewColumns(this.columns),
    };
    clearColumns(this.columns);
    this.numRows = 0;
    if (this.newRequests.length > 0) this.newRequests = [];
    if (this.errors.length > 0) this.errors = [];
    return message;
  }

  private announce(request: Request): void {
    const { sampling, numPromptTokens } = request;
    const first = Math.max(0, numPromptTokens - numContextIds);
    request.announced = true;
    this.newRequests.push({
      frontendId: request.frontendId,
      requestId: request.requestId,
      text: request.text,
      numPromptTokens,
      minTokens: sampling.minTokens,
      logprobs: sampling.logprobs,
      promptLogprobs: request.leader === null ? sampling.promptLogprobs : null,
      lastPromptIds: Array.from(request.tokenIds.subarray(first, numPromptTokens)),
    });
  }
}
