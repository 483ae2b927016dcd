// Answers of /v1/chat/completions: whole, or as chunks of a stream.
import type { RequestOutput } from '../engine-client-types.ts';
import { LogprobList } from '../logprob-list.ts';
import { ChunkFrame, wholeAnswer, type AnswerOptions } from './answer.ts';
import { chatLogprobs, promptLogprobs, type ChatLogprobs } from './logprobs.ts';
import type { StreamFormat } from './stream-response.ts';
import { UsageCounter } from './usage.ts';

export interface ChatOptions extends AnswerOptions {
  readonly promptTokenIds: Int32Array;
  /** What the chat template made of the messages, where it was asked for. */
  readonly promptText: string | null;
  /** Role of the answer: assistant, or that of the final message where no turn is opened. */
  readonly role: string;
  /** What comes before the output (echo); '' = nothing. */
  readonly echo: string;
  /** Alternatives with each token, and whether the request named them (logprob_token_ids). */
  readonly numTop: number;
  readonly areNamed: boolean;
}

/** outputs[choice], whole. */
export function chatResponse(options: ChatOptions, outputs: readonly RequestOutput[]) {
  const counter = new UsageCounter([options.promptTokenIds.length], options);
  const choices = outputs.map((output, index) => {
    counter.output(index, output.numOutputTokens, output.numCachedTokens);
    return {
      index,
      message: { role: options.role, content: options.echo + output.text, refusal: null },
      logprobs: chatLogprobs(output, options),
      finish_reason: output.finishReason,
      stop_reason: output.stopReason,
      ...(options.returnTokenIds ? { token_ids: Array.from(output.tokenIds) } : {}),
    };
  });
  return {
    ...wholeAnswer('chat.completion', options, choices, counter),
    ...(options.promptLogprobs
      ? {
          prompt_logprobs: promptLogprobs(
            outputs[0]!.promptLogprobs,
            options.promptTokenIds.length,
          ),
        }
      : {}),
    ...(options.returnTokenIds ? { prompt_token_ids: Array.from(options.promptTokenIds) } : {}),
    ...(options.promptText === null ? {} : { prompt_text: options.promptText }),
  };
}

export class ChatStream implements StreamFormat {
  private readonly options: ChatOptions;
  private readonly frame: ChunkFrame;
  /** The prompt's logprobs until they are said, with the first choice's first words; then null. */
  private prompt: LogprobList[] | null;

  constructor(options: ChatOptions) {
    this.options = options;
    const numPromptTokens = options.promptTokenIds.length;
    this.frame = new ChunkFrame('chat.completion.chunk', options, [numPromptTokens]);
    this.prompt = options.promptLogprobs ? [] : null;
  }

  /** Who speaks, for every choice, then what is echoed. */
  begin(): string {
    const { n, role, echo, returnTokenIds, promptTokenIds, promptText } = this.options;
    const prompt = {
      ...(returnTokenIds ? { prompt_token_ids: Array.from(promptTokenIds) } : {}),
      ...(promptText === null ? {} : { prompt_text: promptText }),
    };
    const all = Array.from({ length: n }, (_, choice) => choice);
    const roles = all.map((choice) =>
      this.chunk(
        choice,
        { delta: { role, content: '' }, ...unfinished },
        choice === 0 ? prompt : null,
      ),
    );
    const echoes = all.map((choice) =>
      this.chunk(choice, { delta: { content: echo }, ...unfinished }),
    );
    return roles.join('') + (echo === '' ? '' : echoes.join(''));
  }

  delta(choice: number, output: RequestOutput): string | Iterable<string> {
    this.frame.count(choice, output);
    if (output.promptLogprobs !== null) this.prompt?.push(output.promptLogprobs);
    const ended = output.finishReason !== 'none';
    if (!ended && output.text === '' && output.tokenIds.length === 0) return '';
    const said: ChunkChoice = {
      delta: { content: output.text },
      logprobs: chatLogprobs(output, this.options),
      finish_reason: ended ? output.finishReason : null,
      ...(ended ? { stop_reason: output.stopReason } : {}),
      ...(this.options.returnTokenIds ? { token_ids: Array.from(output.tokenIds) } : {}),
    };
    if (choice > 0 || this.prompt === null) return this.chunk(choice, said);
    const list = LogprobList.concat(this.prompt);
    this.prompt = null;
    const prompt_logprobs = promptLogprobs(list, output.numPromptTokens);
    return this.frame.chunkParts(choice, { index: choice, ...said }, { prompt_logprobs });
  }

  end(): string {
    return this.frame.end();
  }

  private chunk(index: number, choice: ChunkChoice, extra: object | null = null): string {
    return this.frame.chunk(index, { index, ...choice }, extra);
  }
}

interface ChunkChoice {
  readonly delta: { readonly role?: string; readonly content: string };
  readonly logprobs: ChatLogprobs | null;
  readonly finish_reason: string | null;
  readonly stop_reason?: string | number | null;
  readonly token_ids?: number[];
}

const unfinished = { logprobs: null, finish_reason: null };
