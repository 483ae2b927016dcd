// The detokenizer's text services, for programs without a tokenizer: calls that are answered by
// number.
import type { RequestError } from '../common/errors.ts';
import type {
  ApplyChatTemplate,
  FrontendToDetokenizer,
  TextReply,
} from '../common/wire/messages.ts';
import { Calls } from './engine-client-calls.ts';

/** Enough for the detokenizer's threads, and well below what it refuses: 64, or too much text. */
const maxOpenCalls = 16;

export interface TemplateOptions {
  readonly addGenerationPrompt?: boolean;
  readonly continueFinalMessage?: boolean;
  readonly addSpecialTokens?: boolean;
  readonly templateArgs?: Readonly<Record<string, unknown>>;
}

export class TextCalls {
  private readonly calls = new Calls<TextReply>(maxOpenCalls);
  private readonly send: (message: FrontendToDetokenizer) => void;

  constructor(send: (message: FrontendToDetokenizer) => void) {
    this.send = send;
  }

  async tokenize(
    text: string,
    addSpecialTokens: boolean,
    allowSpecialTokens: boolean,
  ): Promise<Int32Array> {
    const options = { addSpecialTokens, ...(allowSpecialTokens && { allowSpecialTokens }) };
    const { columns } = await this.calls.call((callId) =>
      this.send({ kind: 'tokenize', callId, text, ...options }),
    );
    return columns.tokenIds;
  }

  async applyChatTemplate(
    messages: ApplyChatTemplate['messages'],
    options: TemplateOptions,
  ): Promise<{ text: string; tokenIds: Int32Array }> {
    const { addGenerationPrompt = true, continueFinalMessage = false } = options;
    const { addSpecialTokens = false, templateArgs = {} } = options;
    const flags = { addGenerationPrompt, continueFinalMessage, addSpecialTokens };
    const { text, columns } = await this.calls.call((callId) =>
      this.send({ kind: 'applyChatTemplate', callId, messages, ...flags, templateArgs }),
    );
    return { text: text ?? '', tokenIds: columns.tokenIds };
  }

  async detokenize(tokenIds: Int32Array, skipSpecialTokens: boolean): Promise<string> {
    const columns = { tokenIds };
    const { text } = await this.calls.call((callId) =>
      this.send({ kind: 'detokenize', callId, skipSpecialTokens, columns }),
    );
    return text ?? '';
  }

  settle(reply: TextReply): void {
    this.calls.settle(reply);
  }

  failAll(error: RequestError): void {
    this.calls.failAll(error);
  }
}
