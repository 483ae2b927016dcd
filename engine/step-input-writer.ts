// Fills the columns of StepInput: rows that are new in the step in full, block table entries that
// are new, and the scheduled rows. Reused step after step.
import { isGreedy, minTemperature } from '../common/sampling-params.ts';
import type { StepInput } from '../common/wire/messages.ts';
import { stepInputColumns } from '../common/wire/step.ts';
import { clearColumns, makeGrowing, viewColumns } from '../common/wire/growing-columns.ts';
import type { Request } from './request.ts';

export class StepInputWriter {
  numTokens = 0;
  numRows = 0;
  private readonly columns = makeGrowing(stepInputColumns);

  begin(): void {
    clearColumns(this.columns);
    this.numTokens = 0;
    this.numRows = 0;
  }

  /** A request that begins or resumes: everything the worker needs to know of it. */
  newRow(request: Request): void {
    const { sampling, numTokens } = request;
    const c = this.columns;
    const greedy = isGreedy(sampling);
    c.newRow.push(request.row);
    c.newNumTokens.push(numTokens);
    c.newNumPromptTokens.push(request.numPromptTokens);
    c.newTokenIds.append(request.tokenIds.subarray(0, numTokens));
    c.newTemperature.push(greedy ? 0 : Math.max(sampling.temperature, minTemperature));
    c.newTopP.push(greedy ? 1 : sampling.topP);
    c.newTopK.push(greedy ? 0 : Math.max(sampling.topK, 0));
    c.newMinP.push(greedy ? 0 : sampling.minP);
    c.newPresencePenalty.push(sampling.presencePenalty);
    c.newFrequencyPenalty.push(sampling.frequencyPenalty);
    c.newRepetitionPenalty.push(sampling.repetitionPenalty);
    c.newSeed.push(request.seed);
    c.newMinTokens.push(sampling.minTokens);
    c.newMaxNumTokens.push(request.maxNumTokens);
    const named = sampling.logprobTokenIds ?? [];
    // Ids that the request names take the place of the best ones.
    c.newNumLogprobs.push(named.length > 0 ? 0 : (sampling.logprobs ?? -1));
    c.newNumPromptLogprobs.push(request.wantsPromptLogprobs ? sampling.promptLogprobs! : -1);
    c.newNumLogprobIds.push(named.length);
    c.logprobIds.append(named);
    c.newNumStopIds.push(request.stopIds.length);
    c.stopIds.append(request.stopIds);
    c.newNumLogitBias.push(sampling.logitBias?.ids.length ?? 0);
    if (sampling.logitBias) {
      c.logitBiasIds.append(sampling.logitBias.ids);
      c.logitBias.append(sampling.logitBias.values);
    }
    c.newNumAllowedIds.push(sampling.allowedTokenIds?.length ?? 0);
    if (sampling.allowedTokenIds) c.allowedIds.append(sampling.allowedTokenIds);
    c.newNumBadWords.push(sampling.badWords.length);
    for (const word of sampling.badWords) {
      c.badWordLength.push(word.length);
      c.badWordIds.append(word);
    }
  }

  /** Block table entries from `firstBlock` on, as far as they are read. */
  newBlocks(request: Request, firstBlock: number): void {
    const c = this.columns;
    for (
      let index = Math.max(firstBlock, request.numReleased);
      index < request.numBlocks;
      index++
    ) {
      c.blockRow.push(request.row);
      c.blockIndex.push(index);
      c.blockId.push(request.blockTable[index]!);
    }
  }

  /** `count` tokens of a request from position `start` on; `flags` are stepFlags. */
  row(request: Request, start: number, count: number, flags: number): void {
    const c = this.columns;
    c.row.push(request.row);
    c.start.push(start);
    c.count.push(count);
    c.flags.push(flags);
    this.numTokens += count;
    this.numRows++;
  }

  /** Its columns are valid until the next begin(). */
  message(step: number, generation: number): StepInput {
    return {
      kind: 'stepInput',
      step,
      generation,
      numTokens: this.numTokens,
      connectorMeta: null,
      columns: viewColumns(this.columns),
    };
  }
}
