// Messages as the chat template takes them: plain text. What is not text is refused by its path.
import type { ChatMessage, TextServiceLike } from './backend.ts';
import { bad } from './sampling.ts';
import { notBuilt } from './schema/parse.ts';
import type { ChatRequest } from './schema/chat-schema.ts';
import type { MessageInput } from './schema/message-schema.ts';

const roles = new Set(['system', 'developer', 'user', 'assistant']);
/** Tool calls are not built; an empty list of them is none. */
const unsupported = ['tool_calls', 'tool_call_id', 'function_call', 'audio'];
const known = new Set(['role', 'content', 'name', 'refusal', ...unsupported]);

export interface ChatMessages {
  readonly messages: readonly ChatMessage[];
  /** Fields of messages that had no effect, as "messages.<name>". */
  readonly ignored: readonly string[];
}

export function chatMessages(
  input: readonly MessageInput[],
  text: Pick<TextServiceLike, 'templateUses'>,
): ChatMessages {
  const ignored = new Set<string>();
  const messages = input.map((message, i) => {
    const where = `messages.${i}`;
    for (const name of unsupported) {
      const value = message[name] ?? null;
      const nothing = value === null || (Array.isArray(value) && value.length === 0);
      if (!nothing) throw notBuilt(`${where}.${name}`);
    }
    if (message.role === 'tool' || message.role === 'function')
      throw notBuilt(`${where}.role`, message.role);
    if (!roles.has(message.role)) {
      throw bad(`${where}.role`, `must be one of ${[...roles].join(', ')}`);
    }
    for (const [name, value] of Object.entries(message)) {
      if (value !== null && !known.has(name)) ignored.add(`messages.${name}`);
    }
    // OpenAI's newer name for the same thing, which templates do not know.
    const role = message.role === 'developer' ? 'system' : message.role;
    const name = message.name ?? undefined;
    if (name !== undefined && !text.templateUses('name')) ignored.add('messages.name');
    return { role, content: contentText(message, where), ...(name !== undefined && { name }) };
  });
  return { messages, ignored: [...ignored] };
}

type TemplateFields = Pick<ChatRequest, 'chat_template_kwargs' | 'reasoning_effort' | 'documents'>;

type TurnFields = TemplateFields &
  Pick<ChatRequest, 'continue_final_message' | 'add_generation_prompt' | 'add_special_tokens'>;

/** How the template ends the conversation, and what it gets beside the messages. */
export function turnOf(body: TurnFields) {
  const continueFinalMessage = body.continue_final_message ?? false;
  if (continueFinalMessage && body.add_generation_prompt) {
    throw bad('continue_final_message', 'excludes add_generation_prompt');
  }
  return {
    continueFinalMessage,
    addGenerationPrompt: body.add_generation_prompt ?? !continueFinalMessage,
    addSpecialTokens: body.add_special_tokens ?? false,
    templateArgs: templateArgs(body),
  };
}

/** As in vLLM, a field wins over its name in kwargs. */
function templateArgs(body: TemplateFields): Readonly<Record<string, unknown>> {
  const { chat_template_kwargs: kwargs, reasoning_effort, documents } = body;
  return {
    ...kwargs,
    ...(reasoning_effort !== undefined && { reasoning_effort }),
    ...(documents !== undefined && { documents }),
  };
}

/** Those that the chat template does not have, as "chat_template_kwargs.<name>" or the field. */
export function unusedTemplateArgs(body: TemplateFields, text: TextServiceLike): string[] {
  const isUnused = (name: string) => !text.templateUses(name);
  const kwargs = Object.keys(body.chat_template_kwargs ?? {})
    .filter((name) => /^\w+$/.test(name) && isUnused(name))
    .map((name) => `chat_template_kwargs.${name}`);
  // No effort and no documents are what a template without them has.
  const given = [
    ...((body.reasoning_effort ?? 'none') === 'none' ? [] : ['reasoning_effort']),
    ...((body.documents ?? []).length === 0 ? [] : ['documents']),
  ];
  return [...kwargs, ...given.filter(isUnused)];
}

function contentText({ role, content }: MessageInput, where: string): string {
  if (typeof content === 'string') return content;
  if (content === null || content === undefined) {
    if (role === 'assistant') return '';
    throw bad(`${where}.content`, 'is required');
  }
  const texts = content.map((part, i) => {
    if (typeof part === 'string') return part;
    if (part.type !== 'text') throw notBuilt(`${where}.content.${i}.type`, part.type);
    if (typeof part.text !== 'string') {
      throw bad(`${where}.content.${i}.text`, 'must be a string');
    }
    return part.text;
  });
  return texts.join('\n');
}
