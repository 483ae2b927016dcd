// Answers of /v1/chat/completions: whole, or as chunks of a stream.
import type { RequestOutput } from '../engine-client-types.ts';
import type { Envelope } from './ids.ts';
import { chatLogprobs, promptLogprobs, type ChatLogprobs } from './logprobs.ts';
import { event } from './sse.ts';
import type { StreamFormat } from './stream-response.ts';
import { UsageCounter, type Usage } from './usage.ts';

export interface ChatOptions {
  readonly envelope: Envelope;
  readonly promptTokenIds: Int32Array;
  readonly n: number;
  /** Role of the answer: assistant, or that of the final message where no turn is opened. */
  readonly role: string;
  /** What comes before the output (echo); '' = nothing. */
  readonly echo: string;
  readonly numTop: number;
  readonly promptLogprobs: boolean;
  readonly asTokenIds: boolean;
  readonly returnTokenIds: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
}

/** outputs[choice], whole. */
export function chatResponse(options: ChatOptions, outputs: readonly RequestOutput[]) {
  const counter = new UsageCounter([options.promptTokenIds.length]);
  const choices = outputs.map((output, index) => {
    counter.output(index, output.numOutputTokens);
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
    ...head(options, 'chat.completion'),
    choices,
    usage: counter.usage(),
    ...(options.promptLogprobs ? { prompt_logprobs: promptLogprobs(outputs[0]!) } : {}),
    ...(options.returnTokenIds ? { prompt_token_ids: Array.from(options.promptTokenIds) } : {}),
  };
}

export class ChatStream implements StreamFormat {
  private readonly options: ChatOptions;
  private readonly counter: UsageCounter;
  private readonly start: string;

  constructor(options: ChatOptions) {
    this.options = options;
    this.counter = new UsageCounter([options.promptTokenIds.length]);
    this.start = JSON.stringify(head(options, 'chat.completion.chunk')).slice(0, -1);
  }

  /** Who speaks, for every choice, then what is echoed. */
  begin(): string {
    const { n, role, echo, returnTokenIds, promptTokenIds } = this.options;
    const prompt = returnTokenIds
      ? `,"prompt_token_ids":${JSON.stringify(Array.from(promptTokenIds))}`
      : '';
    const all = Array.from({ length: n }, (_, choice) => choice);
    const roles = all.map((choice) =>
      this.chunk(
        choice,
        { delta: { role, content: '' }, ...unfinished },
        choice === 0 ? prompt : '',
      ),
    );
    const echoes = all.map((choice) =>
      this.chunk(choice, { delta: { content: echo }, ...unfinished }),
    );
    return roles.join('') + (echo === '' ? '' : echoes.join(''));
  }

  delta(choice: number, output: RequestOutput): string {
    this.counter.output(choice, output.numOutputTokens);
    const ended = output.finishReason !== 'none';
    if (!ended && output.text === '' && output.tokenIds.length === 0) return '';
    return this.chunk(choice, {
      delta: { content: output.text },
      logprobs: chatLogprobs(output, this.options),
      finish_reason: ended ? output.finishReason : null,
      ...(ended ? { stop_reason: output.stopReason } : {}),
      ...(this.options.returnTokenIds ? { token_ids: Array.from(output.tokenIds) } : {}),
    });
  }

  end(): string {
    if (!this.options.includeUsage) return '';
    return event(`${this.start},"choices":[]${usageField(this.counter.usage())}}`);
  }

  private chunk(index: number, choice: ChunkChoice, extra = ''): string {
    const body = JSON.stringify({ index, ...choice });
    const { continuousUsage, n } = this.options;
    const tail = continuousUsage ? usageField(this.counter.usageOf(index, n)) : '';
    return event(`${this.start},"choices":[${body}]${extra}${tail}}`);
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

function head({ envelope }: ChatOptions, object: string) {
  return { id: envelope.id, object, created: envelope.created, model: envelope.model };
}

function usageField(value: Usage): string {
  return `,"usage":${JSON.stringify(value)}`;
}
