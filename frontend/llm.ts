// The offline LLM class: starts a server of its own, without HTTP, and is its frontend. Whole lists
// of prompts go in, whole outputs come out.
import { setMaxListeners } from 'node:events';
import { isMainThread } from 'node:worker_threads';
import { RequestError } from '../common/errors.ts';
import type { FinishReason } from '../common/wire/messages.ts';
import { EngineClient } from './engine-client.ts';
import type { RequestOutput } from './engine-client-types.ts';
import { makeRequest, type LlmParams } from './llm-params.ts';
import { LogprobList } from './logprob-list.ts';
import { LlmServer, type FlagValue } from './llm-server.ts';

/** Flags of `vllm-ts serve` in camelCase (maxModelLen for --max-model-len), and the model. */
export interface LlmOptions {
  /** A Hugging Face folder; absent = the demo model. */
  readonly model?: string;
  readonly [flag: string]: FlagValue | undefined;
}

/** Text, or token ids. */
export type Prompt = string | readonly number[] | Int32Array;
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

export interface LlmChoice {
  readonly index: number;
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: LogprobList | null;
  readonly finishReason: FinishReason;
  readonly stopReason: string | number | null;
}

export interface LlmOutput {
  readonly promptTokenIds: readonly number[];
  /** Of the prompt's tokens from the second on, if asked for. */
  readonly promptLogprobs: LogprobList | null;
  /** One per choice, in order. */
  readonly outputs: readonly LlmChoice[];
  readonly numCachedTokens: number;
}

export class LLM {
  private readonly server: LlmServer;
  private readonly client: EngineClient;

  private constructor(server: LlmServer, client: EngineClient) {
    this.server = server;
    this.client = client;
  }

  /**
   * Resolves when the model is loaded; what has to be compiled before that is told on stderr. Throws
   * StartError with the server's own words.
   */
  static async create(options: LlmOptions = {}): Promise<LLM> {
    // zeromq aborts the whole process when a worker thread that holds sockets is terminated.
    if (!isMainThread) throw new Error('LLM.create works in the main thread only');
    const { model = null, ...flags } = options;
    const given = Object.entries(flags).filter(([, value]) => value !== undefined);
    const server = await LlmServer.start(
      model,
      Object.fromEntries(given) as Record<string, FlagValue>,
    );
    try {
      return new LLM(server, await EngineClient.connect(server.folder));
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  /** The client underneath: streaming, aborts, text services, limits. */
  get engine(): EngineClient {
    return this.client;
  }

  /** One output a prompt, in order; rejects with the first error (RequestError) of any. */
  async generate(
    prompts: Prompt | readonly Prompt[],
    params: LlmParams = {},
  ): Promise<LlmOutput[]> {
    const list = isPrompt(prompts) ? [prompts] : asList(prompts, 'prompts');
    return this.runAll(list, params, async (prompt) =>
      typeof prompt === 'string' ? this.client.tokenize(prompt) : tokenIdsOf(prompt),
    );
  }

  /** As generate, for one conversation or a list of them, through the model's chat template. */
  async chat(
    conversations: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    params: LlmParams = {},
  ): Promise<LlmOutput[]> {
    const all = asList(conversations, 'conversations');
    const list = isConversation(all) ? [all] : all;
    return this.runAll(
      list,
      params,
      async (messages) => (await this.client.applyChatTemplate(messages)).tokenIds,
    );
  }

  /**
   * Ends what is open and the server with it. A program that has not called it goes on running:
   * zeromq's sockets keep it, and have no unref.
   */
  async close(): Promise<void> {
    this.client.close();
    await this.server.stop();
  }

  /** `await using llm = await LLM.create()` closes it at the end of its block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** At most twice as many requests at once as the engine runs, so that no queue bound is met. */
  private async runAll<T>(
    items: readonly T[],
    params: LlmParams,
    tokensOf: (item: T) => Promise<Int32Array>,
  ): Promise<LlmOutput[]> {
    const outputs: LlmOutput[] = [];
    const ending = new AbortController();
    // Each request listens to it.
    setMaxListeners(0, ending.signal);
    let next = 0;
    const work = async () => {
      for (let i = next++; i < items.length && !ending.signal.aborted; i = next++)
        outputs[i] = await this.run(await tokensOf(items[i]!), params, ending.signal);
    };
    const numWorkers = Math.min(items.length, Math.max(1, 2 * this.client.info.maxNumSeqs));
    try {
      await Promise.all(Array.from({ length: numWorkers }, work));
    } catch (error) {
      ending.abort();
      throw error;
    }
    return outputs;
  }

  private async run(
    promptTokenIds: Int32Array,
    params: LlmParams,
    signal: AbortSignal,
  ): Promise<LlmOutput> {
    const request = makeRequest(promptTokenIds, params, this.client.info.defaultSampling);
    const choices: RequestOutput[][] = Array.from({ length: request.n }, () => []);
    for await (const output of this.client.generate(request, { signal })) {
      if (output.error) throw output.error;
      choices[output.index]!.push(output);
    }
    const first = choices[0]!;
    return {
      promptTokenIds: [...promptTokenIds],
      promptLogprobs: LogprobList.concat(first.flatMap((it) => it.promptLogprobs ?? [])),
      outputs: choices.map(joinOutputs),
      numCachedTokens: first.at(-1)?.numCachedTokens ?? 0,
    };
  }
}

function joinOutputs(parts: readonly RequestOutput[], index: number): LlmChoice {
  const last = parts.at(-1)!;
  return {
    index,
    text: parts.map(({ text }) => text).join(''),
    tokenIds: parts.flatMap(({ tokenIds }) => [...tokenIds]),
    logprobs: LogprobList.concat(parts.flatMap(({ logprobs }) => logprobs ?? [])),
    finishReason: last.finishReason,
    stopReason: last.stopReason,
  };
}

function isPrompt(prompts: Prompt | readonly Prompt[]): prompts is Prompt {
  if (typeof prompts === 'string' || prompts instanceof Int32Array) return true;
  return Array.isArray(prompts) && typeof prompts[0] === 'number';
}

/** A program in JavaScript may hand over anything. */
function asList<T extends readonly unknown[]>(value: T, name: string): T {
  if (!Array.isArray(value)) throw new RequestError('bad_request', `${name} must be a list`, name);
  return value;
}

function tokenIdsOf(prompt: readonly number[] | Int32Array): Int32Array {
  if (prompt instanceof Int32Array) return prompt;
  if (Array.isArray(prompt) && prompt.every(isInt32)) return Int32Array.from(prompt);
  throw new RequestError('bad_request', 'a prompt must be text or a list of token ids', 'prompt');
}

const isInt32 = (id: unknown) => Number.isInteger(id) && (id as number) === ((id as number) | 0);

function isConversation(
  conversations: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
): conversations is readonly ChatMessage[] {
  return !Array.isArray(conversations[0]);
}
