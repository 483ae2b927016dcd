// Text services with an asynchronous face: encode, applyChatTemplate, decode. Short input is done
// at once on the caller's thread, long input in a worker thread, so that nobody's prompt holds up
// another's stream. Used by frontends and by the detokenizer process (for foreign frontends).
import { RequestError } from '../errors.ts';
import {
  ChatTemplate,
  type ChatMessage,
  type ChatTemplateOptions,
  type RenderedChat,
} from './chat-template.ts';
import { Tokenizer, type DecodeOptions, type EncodeOptions } from './tokenizer.ts';
import { readChatTemplate } from './tokenizer-files.ts';

export interface TextServiceOptions {
  /** Folder with tokenizer.json and its companions. */
  readonly tokenizerPath: string;
  /** The operator's template; null = the model's own. */
  readonly chatTemplatePath: string | null;
  readonly maxModelLen: number;
}

/** Every method rejects with RequestError where the input is at fault. */
export interface TextService {
  readonly tokenizer: Tokenizer;
  /** false: applyChatTemplate rejects, for there is no template. */
  readonly hasChatTemplate: boolean;
  encode(text: string, options: EncodeOptions): Promise<Int32Array>;
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions,
  ): Promise<RenderedChat>;
  decode(tokenIds: Int32Array, options: DecodeOptions): Promise<string>;
  /** Ends the worker threads; calls under way are rejected. */
  close(): Promise<void>;
}

export function createTextService(options: TextServiceOptions): TextService {
  const inline = new InlineText(options);
  return {
    tokenizer: inline.tokenizer,
    hasChatTemplate: inline.hasChatTemplate,
    encode: (text, o) => attempt(() => inline.tokenizer.encode(text, o)),
    applyChatTemplate: (messages, o) => attempt(() => inline.applyChatTemplate(messages, o)),
    decode: (tokenIds, o) => attempt(() => inline.tokenizer.decode(tokenIds, o)),
    close: () => Promise.resolve(),
  };
}

/** The services themselves, synchronous: what both the caller's thread and the workers run. */
export class InlineText {
  readonly tokenizer: Tokenizer;
  private readonly template: ChatTemplate | null;

  /** Throws StartError naming the file at fault. */
  constructor({ tokenizerPath, chatTemplatePath, maxModelLen }: TextServiceOptions) {
    this.tokenizer = Tokenizer.load(tokenizerPath, maxModelLen);
    const source =
      chatTemplatePath === null
        ? this.tokenizer.files.chatTemplate
        : readChatTemplate(chatTemplatePath);
    this.template =
      source === null
        ? null
        : new ChatTemplate(this.tokenizer, source, chatTemplatePath ?? tokenizerPath);
  }

  get hasChatTemplate(): boolean {
    return this.template !== null;
  }

  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions): RenderedChat {
    if (this.template === null)
      throw new RequestError(
        'bad_request',
        'this model has no chat template; the operator can give one with --chat-template',
      );
    return this.template.render(messages, options);
  }
}

function attempt<T>(work: () => T): Promise<T> {
  return new Promise((resolve) => resolve(work()));
}
