// Answers tokenize, applyChatTemplate and detokenize for frontends without a tokenizer. What a
// stranger sends is checked field by field; each call has exactly one textReply.
import { RequestError, WireError, type ErrorInfo } from '../common/errors.ts';
import { isMap } from '../common/json-object.ts';
import type { ChatMessage, TextService } from '../common/text/text-service.ts';
import { checkColumns } from '../common/wire/columns.ts';
import { detokenizeColumns, type TextReply } from '../common/wire/messages.ts';
import type { AnyMessage, PeerId } from '../common/wire/transport.ts';

const kinds: readonly string[] = ['tokenize', 'applyChatTemplate', 'detokenize'];

/** Calls of one peer that may be under way; more are answered queue_full. */
const maxOpenCalls = 64;

interface Answer {
  readonly text: string | null;
  readonly tokenIds: Int32Array;
}

export function isTextCall(message: AnyMessage): boolean {
  return kinds.includes(message.kind);
}

export class TextCallServer {
  private readonly text: TextService;
  private readonly maxMessages: number;
  private readonly reply: (peer: PeerId, message: TextReply) => void;
  private readonly numOpen = new Map<PeerId, number>();

  constructor(
    text: TextService,
    maxMessages: number,
    reply: (peer: PeerId, message: TextReply) => void,
  ) {
    this.text = text;
    this.maxMessages = maxMessages;
    this.reply = reply;
  }

  /** Throws WireError when not even an answer is possible, for want of a callId. */
  handle(peer: PeerId, message: AnyMessage): void {
    const callId = message['callId'];
    if (!isU32(callId)) throw new WireError(`${message.kind}: callId is not an unsigned integer`);
    const numOpen = this.numOpen.get(peer) ?? 0;
    if (numOpen >= maxOpenCalls) {
      const error = new RequestError('queue_full', `more than ${maxOpenCalls} calls are open`);
      this.send(peer, callId, null, error.info());
      return;
    }
    this.numOpen.set(peer, numOpen + 1);
    this.run(message)
      .then(
        (answer) => this.send(peer, callId, answer, null),
        (error: unknown) => this.send(peer, callId, null, toInfo(error)),
      )
      .finally(() => this.close(peer));
  }

  peerGone(peer: PeerId): void {
    this.numOpen.delete(peer);
  }

  private async run(message: AnyMessage): Promise<Answer> {
    switch (message.kind) {
      case 'tokenize': {
        const text = field(message, 'text', isString, 'a string');
        const addSpecialTokens = field(message, 'addSpecialTokens', isBoolean, 'a boolean');
        const allowSpecial = optional(message, 'allowSpecialTokens', isBoolean, 'a boolean');
        const options = { addSpecialTokens, allowSpecial };
        return { text: null, tokenIds: await this.text.encode(text, options) };
      }
      case 'applyChatTemplate':
        return await this.text.applyChatTemplate(
          checkMessages(message['messages'], this.maxMessages),
          {
            addGenerationPrompt: field(message, 'addGenerationPrompt', isBoolean, 'a boolean'),
            continueFinalMessage: field(message, 'continueFinalMessage', isBoolean, 'a boolean'),
            addSpecialTokens: field(message, 'addSpecialTokens', isBoolean, 'a boolean'),
            templateArgs: field(message, 'templateArgs', isMap, 'a map'),
          },
        );
      default: {
        const skipSpecialTokens = field(message, 'skipSpecialTokens', isBoolean, 'a boolean');
        const { tokenIds } = checkDetokenize(message);
        const text = await this.text.decode(tokenIds, { skipSpecialTokens });
        return { text, tokenIds: new Int32Array(0) };
      }
    }
  }

  private send(peer: PeerId, callId: number, answer: Answer | null, error: ErrorInfo | null): void {
    const tokenIds = answer?.tokenIds ?? new Int32Array(0);
    const text = answer?.text ?? null;
    this.reply(peer, {
      kind: 'textReply',
      callId,
      text,
      error,
      columns: { tokenIds: Int32Array.from(tokenIds) },
    });
  }

  private close(peer: PeerId): void {
    const numOpen = this.numOpen.get(peer);
    if (numOpen !== undefined) this.numOpen.set(peer, numOpen - 1);
  }
}

function checkDetokenize(message: AnyMessage): { readonly tokenIds: Int32Array } {
  try {
    return checkColumns(message.columns ?? {}, detokenizeColumns);
  } catch (error) {
    throw new RequestError('bad_request', (error as Error).message, 'tokenIds');
  }
}

function checkMessages(value: unknown, maxMessages: number): ChatMessage[] {
  if (!Array.isArray(value)) throw wrong('messages', 'an array');
  if (value.length > maxMessages) throw wrong('messages', `at most ${maxMessages} messages`);
  return value.map((entry: unknown, i) => {
    if (!isMap(entry)) throw wrong(`messages[${i}]`, 'a map');
    const { role, content, name } = entry;
    if (typeof role !== 'string') throw wrong(`messages[${i}].role`, 'a string');
    if (typeof content !== 'string') throw wrong(`messages[${i}].content`, 'a string');
    if (name === undefined || name === null) return { role, content };
    if (typeof name !== 'string') throw wrong(`messages[${i}].name`, 'a string');
    return { role, content, name };
  });
}

function field<T>(
  message: AnyMessage,
  name: string,
  is: (value: unknown) => value is T,
  what: string,
): T {
  const value = message[name];
  if (!is(value)) throw wrong(name, what);
  return value;
}

/** As field, for those that may be absent or nil. */
function optional<T>(
  message: AnyMessage,
  name: string,
  is: (value: unknown) => value is T,
  what: string,
): T | undefined {
  return (message[name] ?? null) === null ? undefined : field(message, name, is, what);
}

function wrong(name: string, what: string): RequestError {
  return new RequestError('bad_request', `${name} must be ${what}`, name);
}

const isString = (value: unknown): value is string => typeof value === 'string';
const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean';

function isU32(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffffffff;
}

/** What went wrong on our side is not told to strangers. */
function toInfo(error: unknown): ErrorInfo {
  if (error instanceof RequestError) return error.info();
  return { code: 'internal', message: 'the text service failed' };
}
