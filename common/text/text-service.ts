// Text services with an asynchronous face: encode, applyChatTemplate, decode. Short input is done
// at once on the caller's thread, long input and too many short ones in worker threads, so that
// nobody's prompts hold up another's stream. Used by frontends and by the detokenizer process (for
// foreign frontends).
import { RequestError } from '../errors.ts';
import type { ChatMessage, ChatTemplateOptions, RenderedChat } from './chat-template.ts';
import {
  InlineText,
  runCall,
  sizeOf,
  type TextCall,
  type TextServiceOptions,
} from './text-calls.ts';
import { TextPool } from './text-pool.ts';
import type { DecodeOptions, EncodeOptions, Tokenizer } from './tokenizer.ts';

export type { ChatMessage, ChatTemplateOptions, RenderedChat } from './chat-template.ts';
export type { TextServiceOptions } from './text-calls.ts';
export type { DecodeOptions, EncodeOptions } from './tokenizer.ts';

/** Input up to this size (characters or ids) is not worth a thread. */
const defaultMaxInlineSize = 4096;
/** But many short ones together are: of one request with a thousand prompts, or of many requests. */
const inlineSizesPerTurn = 4;

/** Every method rejects with RequestError where the input is at fault. */
export interface TextService {
  readonly tokenizer: Tokenizer;
  /** false: applyChatTemplate rejects, for there is no template. */
  readonly hasChatTemplate: boolean;
  /** Whether the template has a variable of this name. */
  templateUses(name: string): boolean;
  encode(text: string, options: EncodeOptions): Promise<Int32Array>;
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions,
  ): Promise<RenderedChat>;
  decode(tokenIds: Int32Array, options: DecodeOptions): Promise<string>;
  /** The tokens as tokenizer.json spells them. */
  tokenStrings(tokenIds: Int32Array): string[];
  /** Ends the worker threads; calls under way are rejected. */
  close(): Promise<void>;
}

/**
 * Loads the tokenizer at once; throws StartError naming the file at fault. With maxInlineSize 0 every
 * call goes to a thread, and this one is spared what only encoding needs.
 */
export function createTextService(
  options: TextServiceOptions,
  maxInlineSize = defaultMaxInlineSize,
): TextService {
  return new ThreadedTextService(options, maxInlineSize);
}

class ThreadedTextService implements TextService {
  private readonly inline: InlineText;
  private readonly pool: TextPool;
  private readonly maxInlineSize: number;
  private readonly maxDecodeIds: number;
  /** What was done inline in this turn of the event loop; null before the first call of a turn. */
  private turnSize: number | null = null;

  constructor(options: TextServiceOptions, maxInlineSize: number) {
    this.inline = new InlineText(options);
    this.maxInlineSize = maxInlineSize;
    this.maxDecodeIds = options.textLimits.decodeIds;
    if (maxInlineSize > 0) this.inline.tokenizer.prepare();
    this.pool = new TextPool(options);
  }

  get tokenizer(): Tokenizer {
    return this.inline.tokenizer;
  }

  get hasChatTemplate(): boolean {
    return this.inline.hasChatTemplate;
  }

  templateUses(name: string): boolean {
    return this.inline.templateUses(name);
  }

  async encode(text: string, options: EncodeOptions): Promise<Int32Array> {
    // Refused before the text is copied to a thread.
    this.tokenizer.checkLength(text);
    return (await this.run({ kind: 'encode', text, options })) as Int32Array;
  }

  async applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions,
  ): Promise<RenderedChat> {
    for (const { role, content, name = '' } of messages)
      for (const text of [role, content, name]) this.tokenizer.checkLength(text);
    return (await this.run({ kind: 'applyChatTemplate', messages, options })) as RenderedChat;
  }

  async decode(tokenIds: Int32Array, options: DecodeOptions): Promise<string> {
    if (tokenIds.length > this.maxDecodeIds)
      throw new RequestError('bad_request', `more than ${this.maxDecodeIds} token ids`, 'tokens');
    return (await this.run({ kind: 'decode', tokenIds, options })) as string;
  }

  tokenStrings(tokenIds: Int32Array): string[] {
    return Array.from(tokenIds, (id) => this.tokenizer.tokenOf(id));
  }

  close(): Promise<void> {
    return this.pool.close();
  }

  private run(call: TextCall): Promise<unknown> | Int32Array | RenderedChat | string {
    const size = sizeOf(call);
    const isShort = size <= this.maxInlineSize && this.fitsTurn(size);
    return isShort ? runCall(this.inline, call) : this.pool.run(call, size);
  }

  private fitsTurn(size: number): boolean {
    if (this.turnSize === null) setImmediate(() => (this.turnSize = null));
    const turnSize = (this.turnSize ?? 0) + size;
    if (turnSize > inlineSizesPerTurn * this.maxInlineSize) return false;
    this.turnSize = turnSize;
    return true;
  }
}
