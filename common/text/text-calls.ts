// The text services themselves, synchronous, and a call to them as data: the caller's own thread
// and the worker threads run the same code.
import { RequestError } from '../errors.ts';
import type { TextLimits } from '../limits.ts';
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
  readonly textLimits: TextLimits;
}

export type TextCall =
  | { readonly kind: 'encode'; readonly text: string; readonly options: EncodeOptions }
  | {
      readonly kind: 'applyChatTemplate';
      readonly messages: readonly ChatMessage[];
      readonly options: ChatTemplateOptions;
    }
  | { readonly kind: 'decode'; readonly tokenIds: Int32Array; readonly options: DecodeOptions };

/** What a call works through: characters or ids. */
export function sizeOf(call: TextCall): number {
  switch (call.kind) {
    case 'encode':
      return call.text.length;
    case 'decode':
      return call.tokenIds.length;
    case 'applyChatTemplate': {
      let size = JSON.stringify(call.options.templateArgs ?? {}).length;
      for (const { role, content, name = '' } of call.messages)
        size += role.length + content.length + name.length + 16;
      return size;
    }
  }
}

/** Throws RequestError where the input is at fault. */
export function runCall(text: InlineText, call: TextCall): Int32Array | RenderedChat | string {
  switch (call.kind) {
    case 'encode':
      return text.tokenizer.encode(call.text, call.options);
    case 'decode':
      return text.tokenizer.decode(call.tokenIds, call.options);
    case 'applyChatTemplate':
      return text.applyChatTemplate(call.messages, call.options);
  }
}

export class InlineText {
  readonly tokenizer: Tokenizer;
  private readonly template: ChatTemplate | null;

  /** Throws StartError naming the file at fault. */
  constructor({ tokenizerPath, chatTemplatePath, maxModelLen, textLimits }: TextServiceOptions) {
    this.tokenizer = Tokenizer.load(tokenizerPath, maxModelLen);
    const file =
      chatTemplatePath === null
        ? this.tokenizer.files.chatTemplate
        : readChatTemplate(chatTemplatePath);
    this.template = file && new ChatTemplate(this.tokenizer, file.source, file.path, textLimits);
  }

  get hasChatTemplate(): boolean {
    return this.template !== null;
  }

  templateUses(name: string): boolean {
    return this.template?.uses(name) ?? false;
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
