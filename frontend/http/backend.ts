// What the HTTP server needs from below: an engine to submit requests to, and the text services.
// Knows nothing of sockets or messages; EngineClient and TextService fit it, and so do test fakes.
import type { EngineStatus, EngineWelcome } from '../../common/wire/messages.ts';
import type { GenerateRequest, RequestHandle, RequestOutput } from '../engine-client-types.ts';

export interface EngineClientLike {
  /**
   * Resolves when the engine has accepted all n choices; rejects with RequestError when it refuses
   * or is gone. Outputs may already come while the promise is being settled.
   */
  submit(
    request: GenerateRequest,
    onOutput: (output: RequestOutput) => void,
  ): Promise<RequestHandle>;
  /** A call to the engine: memory, timeline; rejects with RequestError. */
  utility(method: string, args: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** What the engine said of itself when it welcomed us. */
  readonly info: EngineWelcome;
  /** Latest Status; null before the first. */
  readonly status: EngineStatus | null;
  /**
   * How long work has been open without progress: the greater of status.stalledMs and, while
   * requests are open, the time since the engine was last heard (or since the first of them was
   * submitted). 0 when idle or advancing.
   */
  readonly stalledMs: number;
  /** Engine or detokenizer is gone for now; requests would fail. */
  readonly lost: boolean;
  /** Choices that are open. */
  readonly numOpen: number;
}

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
}

/** Every method rejects with RequestError where the input is at fault (too long, bad template). */
export interface TextServiceLike {
  encode(
    text: string,
    options: {
      readonly addSpecialTokens: boolean;
      /** Special tokens that are written out in the text become tokens; they stay text otherwise. */
      readonly allowSpecial?: boolean | undefined;
    },
  ): Promise<Int32Array>;
  /** The rendered conversation, as text and as ids; special tokens in contents stay text. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: {
      readonly addGenerationPrompt: boolean;
      readonly continueFinalMessage: boolean;
      readonly addSpecialTokens: boolean;
      readonly templateArgs: Readonly<Record<string, unknown>>;
    },
  ): Promise<{ readonly text: string; readonly tokenIds: Int32Array }>;
  /** Whether the chat template has a variable of this name. */
  templateUses(name: string): boolean;
  decode(tokenIds: Int32Array, options: { readonly skipSpecialTokens: boolean }): Promise<string>;
  /** The tokens as the tokenizer spells them. */
  tokenStrings(tokenIds: Int32Array): string[];
}

export interface HttpBackend {
  readonly client: EngineClientLike;
  readonly text: TextServiceLike;
}
