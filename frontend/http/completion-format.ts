// Answers of /v1/completions: whole, or as chunks of a stream.
import type { RequestOutput } from '../engine-client-types.ts';
import { LogprobList } from '../logprob-list.ts';
import { ChunkFrame, wholeAnswer, type AnswerOptions } from './answer.ts';
import { CompletionLogprobsWriter, promptLogprobs, type CompletionLogprobs } from './logprobs.ts';
import type { StreamFormat } from './stream-response.ts';
import { UsageCounter } from './usage.ts';

export interface CompletionPrompt {
  readonly tokenIds: Int32Array;
  /** Only known where it is echoed. */
  readonly text: string;
  /** Text of tokenIds[0], only known where it is echoed with logprobs. */
  readonly firstTokenText: string;
}

export interface CompletionOptions extends AnswerOptions {
  readonly prompts: readonly CompletionPrompt[];
  readonly echo: boolean;
  /** echo with max_tokens 0: the one token that the engine makes is not shown. */
  readonly echoOnly: boolean;
  /** Alternatives; null = no logprobs. */
  readonly logprobs: number | null;
  /** The request named them (logprob_token_ids). */
  readonly areNamed: boolean;
}

interface CompletionChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: CompletionLogprobs | null;
  readonly finish_reason: string | null;
  readonly stop_reason: string | number | null;
  readonly prompt_logprobs?: ReturnType<typeof promptLogprobs>;
  readonly prompt_token_ids?: number[];
  readonly token_ids?: number[];
}

/** outputs[choice], whole. */
export function completionResponse(options: CompletionOptions, outputs: readonly RequestOutput[]) {
  const counter = new UsageCounter(promptLengths(options), options);
  const prompted = sharePromptLogprobs(outputs, options.n);
  const choices = prompted.map((output, choice) => {
    const numTokens = options.echoOnly ? 0 : output.numOutputTokens;
    counter.output(choice, numTokens, output.numCachedTokens);
    return new ChoiceWriter(options, choice).write(output, true);
  });
  return wholeAnswer('text_completion', options, choices, counter);
}

function promptLengths({ prompts }: CompletionOptions): number[] {
  return prompts.map(({ tokenIds }) => tokenIds.length);
}

/** Only the first of n choices brings the logprobs of their common prompt. */
function sharePromptLogprobs(outputs: readonly RequestOutput[], n: number): RequestOutput[] {
  return outputs.map((output, choice) => ({
    ...output,
    promptLogprobs: outputs[choice - (choice % n)]!.promptLogprobs,
  }));
}

export class CompletionStream implements StreamFormat {
  private readonly options: CompletionOptions;
  private readonly writers: ChoiceWriter[] = [];
  private readonly frame: ChunkFrame;
  /** By prompt; null where no chunk has to wait. */
  private readonly held: readonly HeldPrompt[] | null;

  constructor(options: CompletionOptions) {
    this.options = options;
    const holds = options.promptLogprobs || (options.echo && options.logprobs !== null);
    this.held = holds
      ? options.prompts.map((prompt) => new HeldPrompt(prompt.tokenIds.length, options.n))
      : null;
    this.frame = new ChunkFrame('text_completion', options, promptLengths(options));
  }

  begin(): string {
    return '';
  }

  delta(choice: number, output: RequestOutput): string | Iterable<string> {
    if (this.held === null) {
      const said = this.say(choice, output);
      return said === null ? '' : this.frame.chunk(choice, said);
    }
    const ready = this.held[Math.floor(choice / this.options.n)]!.take(choice, output);
    return ready.length === 0 ? '' : this.parts(ready);
  }

  end(): string {
    return this.frame.end();
  }

  /** What is ready may have the logprobs of a long prompt, each of it. */
  private *parts(ready: readonly ChoiceOutput[]): Generator<string> {
    for (const { choice, output } of ready) {
      const said = this.say(choice, output);
      if (said !== null) yield* this.frame.chunkParts(choice, said);
    }
  }

  /** null where there is nothing to say. */
  private say(choice: number, output: RequestOutput): CompletionChoice | null {
    const { echoOnly } = this.options;
    this.frame.count(choice, output, echoOnly ? 0 : output.numOutputTokens);
    const ended = output.finishReason !== 'none';
    if (!ended && (echoOnly || (output.text === '' && output.tokenIds.length === 0))) return null;
    const writer = (this.writers[choice] ??= new ChoiceWriter(this.options, choice));
    return writer.write(output, ended);
  }
}

interface ChoiceOutput {
  readonly choice: number;
  readonly output: RequestOutput;
}

/**
 * Holds back what a prompt's choices say until the prompt's logprobs are there, which are part of
 * the first chunk of each choice and which only the first choice brings.
 */
class HeldPrompt {
  private readonly numPositions: number;
  private readonly known: LogprobList[] = [];
  private numKnown = 0;
  /** What was known when the first words were let go. */
  private all: LogprobList | null = null;
  /** Choices for whose end it would still wait. */
  private numWaiting: number;
  private outputs: ChoiceOutput[] = [];

  constructor(numPromptTokens: number, numChoices: number) {
    this.numPositions = numPromptTokens - 1;
    this.numWaiting = numChoices;
  }

  /** What may be said now; each with the prompt's logprobs, as far as they are known. */
  take(choice: number, output: RequestOutput): ChoiceOutput[] {
    if (output.promptLogprobs !== null) {
      this.known.push(output.promptLogprobs);
      this.numKnown += output.promptLogprobs.length;
    }
    this.outputs.push({ choice, output });
    if (output.finishReason !== 'none') this.numWaiting--;
    if (this.numKnown >= this.numPositions) this.numWaiting = 0;
    if (this.numWaiting > 0) return [];
    this.all ??= LogprobList.concat(this.known.splice(0));
    const { all } = this;
    return this.outputs
      .splice(0)
      .map((ready) => ({ ...ready, output: { ...ready.output, promptLogprobs: all } }));
  }
}

/** Writes one choice, at once or in parts. */
class ChoiceWriter {
  private readonly options: CompletionOptions;
  private readonly choice: number;
  private readonly prompt: CompletionPrompt;
  private readonly logprobs: CompletionLogprobsWriter | null;
  private first = true;

  constructor(options: CompletionOptions, choice: number) {
    this.options = options;
    this.choice = choice;
    this.prompt = options.prompts[Math.floor(choice / options.n)]!;
    const { asTokenIds, areNamed, logprobs } = options;
    const style = { asTokenIds, areNamed, numTop: logprobs ?? 0 };
    this.logprobs = logprobs === null ? null : new CompletionLogprobsWriter(style);
  }

  write(output: RequestOutput, ended: boolean): CompletionChoice {
    const { options, prompt, first } = this;
    const echo = options.echo && first;
    this.first = false;
    const { tokenIds, firstTokenText } = prompt;
    const echoed = echo
      ? { first: { id: tokenIds[0]!, text: firstTokenText }, rest: output.promptLogprobs }
      : null;
    const text = options.echoOnly ? '' : output.text;
    const length = options.echoOnly && ended;
    return {
      index: this.choice,
      text: echo ? prompt.text + text : text,
      logprobs: this.logprobs?.write(echoed, options.echoOnly ? null : output.logprobs) ?? null,
      finish_reason: length ? 'length' : ended ? output.finishReason : null,
      stop_reason: length ? null : output.stopReason,
      ...(options.promptLogprobs && first
        ? { prompt_logprobs: promptLogprobs(output.promptLogprobs, tokenIds.length) }
        : {}),
      ...(options.returnTokenIds
        ? {
            ...(first ? { prompt_token_ids: Array.from(prompt.tokenIds) } : {}),
            token_ids: options.echoOnly ? [] : Array.from(output.tokenIds),
          }
        : {}),
    };
  }
}
