// What the answers of both generate routes have in common: who answers what, usage, and the frame
// of a stream's chunks. The shape of a choice is each route's own.
import { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { buildId } from '../../common/build-id.ts';
import { packageVersion } from '../../common/package-root.ts';
import type { RequestOutput } from '../engine-client-types.ts';
import type { HttpContext } from './context.ts';
import type { SamplingFields } from './schema/sampling-fields.ts';
import { inPieces, jsonParts } from './sliced-json.ts';
import { event, eventEnd, eventStart } from './sse.ts';
import { UsageCounter, type Usage } from './usage.ts';

/** Answers with the same one come from the same build: same request, same seed, same tokens. */
const systemFingerprint = `vllm-ts-${packageVersion}-${buildId}`;

export interface AnswerOptions {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  /** The first served name, whichever the client asked for. */
  readonly model: string;
  readonly n: number;
  /** prompt_logprobs was asked for by name. */
  readonly promptLogprobs: boolean;
  readonly asTokenIds: boolean;
  readonly returnTokenIds: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  /** Usage says how many prompt tokens were found in the prefix cache. */
  readonly cachedTokens: boolean;
}

export function answerOptions(
  prefix: 'cmpl' | 'chatcmpl',
  request: FastifyRequest,
  fields: SamplingFields,
  { config }: HttpContext,
): AnswerOptions {
  return {
    id: `${prefix}-${request.id}`,
    created: Math.floor(Date.now() / 1000),
    model: config.servedModelNames[0]!,
    n: fields.n ?? 1,
    promptLogprobs: fields.prompt_logprobs !== undefined,
    asTokenIds: fields.return_tokens_as_token_ids ?? false,
    returnTokenIds: fields.return_token_ids ?? false,
    includeUsage: (fields.stream_options?.include_usage ?? false) || config.forceIncludeUsage,
    continuousUsage: fields.stream_options?.continuous_usage_stats ?? false,
    cachedTokens: config.enablePromptTokensDetails,
  };
}

/** A whole answer: at once where it is short, and piece by piece where logprobs or choices make it long. */
export async function sendWhole(
  reply: FastifyReply,
  answer: object,
  outputs: readonly RequestOutput[],
): Promise<object> {
  const [{ logprobs, promptLogprobs }] = outputs as [RequestOutput];
  if (outputs.length === 1 && logprobs === null && promptLogprobs === null) return answer;
  reply.type('application/json; charset=utf-8');
  const pieces = inPieces(answer);
  const first = await pieces.next();
  const second = await pieces.next();
  if (second.done) return reply.send(first.value);
  const all = async function* () {
    yield first.value!;
    yield second.value;
    yield* pieces;
  };
  return reply.send(Readable.from(all()));
}

/** Everything of a whole answer but what its route adds. */
export function wholeAnswer<Choice>(
  object: string,
  options: AnswerOptions,
  choices: readonly Choice[],
  counter: UsageCounter,
) {
  return {
    ...head(object, options),
    choices,
    usage: counter.usage(),
    system_fingerprint: systemFingerprint,
  };
}

/** The chunks of a stream around their choices. */
export class ChunkFrame {
  private readonly options: AnswerOptions;
  private readonly counter: UsageCounter;
  private readonly start: string;
  private numOpen: number;

  constructor(object: string, options: AnswerOptions, promptTokens: readonly number[]) {
    this.options = options;
    this.counter = new UsageCounter(promptTokens, options);
    this.start = JSON.stringify(head(object, options)).slice(0, -1);
    this.numOpen = promptTokens.length * options.n;
  }

  /** What the next chunk of the choice will be about. */
  count(choice: number, output: RequestOutput, numOutputTokens = output.numOutputTokens): void {
    this.counter.output(choice, numOutputTokens, output.numCachedTokens);
    if (output.finishReason !== 'none') this.numOpen--;
  }

  /** One choice; `extra` is more of the chunk. */
  chunk(choice: number, body: object, extra: object | null = null): string {
    const more = extra === null ? '' : JSON.stringify(extra).slice(1, -1);
    const between = more === '' ? '' : `,${more}`;
    const json = JSON.stringify(body);
    return event(`${this.start},"choices":[${json}]${between}${this.tail(choice)}}`);
  }

  /** The same text in parts, for a choice whose logprobs may make it long. */
  *chunkParts(choice: number, body: object, extra: object = {}): Generator<string> {
    yield `${eventStart}${this.start},"choices":[`;
    yield* jsonParts(body);
    yield ']';
    for (const [key, value] of Object.entries(extra)) {
      yield `,${JSON.stringify(key)}:`;
      yield* jsonParts(value);
    }
    yield `${this.tail(choice)}}${eventEnd}`;
  }

  /** After the last choice. */
  end(): string {
    if (!this.options.includeUsage) return '';
    const usage = usageField(this.counter.usage());
    return event(`${this.start},"choices":[]${fingerprintField}${usage}}`);
  }

  private tail(choice: number): string {
    const { includeUsage, continuousUsage } = this.options;
    const isLast = this.numOpen === 0 && !includeUsage;
    const usage = continuousUsage ? usageField(this.counter.usageOf(choice)) : '';
    return `${isLast ? fingerprintField : ''}${usage}`;
  }
}

const fingerprintField = `,"system_fingerprint":${JSON.stringify(systemFingerprint)}`;

function head(object: string, { id, created, model }: AnswerOptions) {
  return { id, object, created, model };
}

function usageField(value: Usage): string {
  return `,"usage":${JSON.stringify(value)}`;
}
