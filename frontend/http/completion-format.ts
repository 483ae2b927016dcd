// Answers of /v1/completions: whole, or as chunks of a stream.
import type { RequestOutput, TokenLogprobs } from '../engine-client-types.ts';
import type { Envelope } from './ids.ts';
import { CompletionLogprobsWriter, promptLogprobs, type CompletionLogprobs } from './logprobs.ts';
import { event } from './sse.ts';
import type { StreamFormat } from './stream-response.ts';
import { UsageCounter, type Usage } from './usage.ts';

export interface CompletionPrompt {
  readonly tokenIds: Int32Array;
  /** Only known where it is echoed. */
  readonly text: string;
  /** Text of tokenIds[0], only known where it is echoed with logprobs. */
  readonly firstTokenText: string;
}

export interface CompletionOptions {
  readonly envelope: Envelope;
  readonly prompts: readonly CompletionPrompt[];
  readonly n: number;
  readonly echo: boolean;
  /** echo with max_tokens 0: the one token that the engine makes is not shown. */
  readonly echoOnly: boolean;
  /** Alternatives; null = no logprobs. */
  readonly logprobs: number | null;
  /** prompt_logprobs was asked for by name. */
  readonly promptLogprobs: boolean;
  readonly asTokenIds: boolean;
  readonly returnTokenIds: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
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
  const counter = new UsageCounter(options.prompts.map((prompt) => prompt.tokenIds.length));
  const prompted = sharePromptLogprobs(outputs, options.n);
  const choices = prompted.map((output, choice) => {
    counter.output(choice, options.echoOnly ? 0 : output.numOutputTokens);
    return new ChoiceWriter(options, choice).write(output, true);
  });
  return { ...head(options), choices, usage: counter.usage() };
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
  private readonly counter: UsageCounter;
  private readonly start: string;
  /** By prompt; null where no chunk has to wait. */
  private readonly held: readonly HeldPrompt[] | null;

  constructor(options: CompletionOptions) {
    this.options = options;
    const holds = options.echo && options.logprobs !== null;
    this.held = holds
      ? options.prompts.map((prompt) => new HeldPrompt(prompt.tokenIds.length, options.n))
      : null;
    this.counter = new UsageCounter(options.prompts.map((prompt) => prompt.tokenIds.length));
    this.start = JSON.stringify(head(options)).slice(0, -1);
  }

  begin(): string {
    return '';
  }

  delta(choice: number, output: RequestOutput): string {
    if (this.held === null) return this.chunk(choice, output);
    return this.held[Math.floor(choice / this.options.n)]!.take(choice, output)
      .map((ready) => this.chunk(ready.choice, ready.output))
      .join('');
  }

  private chunk(choice: number, output: RequestOutput): string {
    const { echoOnly, continuousUsage } = this.options;
    this.counter.output(choice, echoOnly ? 0 : output.numOutputTokens);
    const ended = output.finishReason !== 'none';
    if (!ended && (echoOnly || (output.text === '' && output.tokenIds.length === 0))) return '';
    const writer = (this.writers[choice] ??= new ChoiceWriter(this.options, choice));
    const body = JSON.stringify(writer.write(output, ended));
    const tail = continuousUsage ? usageField(this.counter.usageOf(choice, this.options.n)) : '';
    return event(`${this.start},"choices":[${body}]${tail}}`);
  }

  end(): string {
    if (!this.options.includeUsage) return '';
    return event(`${this.start},"choices":[]${usageField(this.counter.usage())}}`);
  }
}

interface ChoiceOutput {
  readonly choice: number;
  readonly output: RequestOutput;
}

/**
 * Holds back what a prompt's choices say until the prompt's logprobs are there, which the first
 * chunk of each choice echoes and only the first choice brings.
 */
class HeldPrompt {
  private readonly numPositions: number;
  private readonly known = new Map<number, TokenLogprobs>();
  /** Choices for whose end it would still wait. */
  private numWaiting: number;
  private outputs: ChoiceOutput[] = [];

  constructor(numPromptTokens: number, numChoices: number) {
    this.numPositions = numPromptTokens - 1;
    this.numWaiting = numChoices;
  }

  /** What may be said now; each with the prompt's logprobs, as far as they are known. */
  take(choice: number, output: RequestOutput): ChoiceOutput[] {
    for (const [position, token] of output.promptLogprobs ?? []) this.known.set(position, token);
    this.outputs.push({ choice, output: { ...output, promptLogprobs: this.known } });
    if (output.finishReason !== 'none') this.numWaiting--;
    if (this.known.size >= this.numPositions) this.numWaiting = 0;
    return this.numWaiting > 0 ? [] : this.outputs.splice(0);
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
    const style = { asTokenIds: options.asTokenIds, numTop: options.logprobs ?? 0 };
    this.logprobs = options.logprobs === null ? null : new CompletionLogprobsWriter(style);
  }

  write(output: RequestOutput, ended: boolean): CompletionChoice {
    const { options, prompt, first } = this;
    const echo = options.echo && first;
    this.first = false;
    if (echo) this.echoLogprobs(output);
    if (!options.echoOnly) for (const token of output.logprobs ?? []) this.logprobs?.add(token);
    const text = options.echoOnly ? '' : output.text;
    const length = options.echoOnly && ended;
    return {
      index: this.choice,
      text: echo ? prompt.text + text : text,
      logprobs: this.logprobs?.take() ?? null,
      finish_reason: length ? 'length' : ended ? output.finishReason : null,
      stop_reason: length ? null : output.stopReason,
      ...(options.promptLogprobs && first ? { prompt_logprobs: promptLogprobs(output) } : {}),
      ...(options.returnTokenIds
        ? {
            ...(first ? { prompt_token_ids: Array.from(prompt.tokenIds) } : {}),
            token_ids: options.echoOnly ? [] : Array.from(output.tokenIds),
          }
        : {}),
    };
  }

  private echoLogprobs(output: RequestOutput): void {
    const { logprobs, prompt } = this;
    if (logprobs === null) return;
    logprobs.addUnpredicted(prompt.tokenIds[0]!, prompt.firstTokenText);
    for (let position = 1; position < prompt.tokenIds.length; position++) {
      const token = output.promptLogprobs?.get(position);
      if (token !== undefined) logprobs.add(token);
    }
  }
}

function head({ envelope }: CompletionOptions) {
  return {
    id: envelope.id,
    object: 'text_completion',
    created: envelope.created,
    model: envelope.model,
  };
}

function usageField(value: Usage): string {
  return `,"usage":${JSON.stringify(value)}`;
}
