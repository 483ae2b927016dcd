// Chat messages: a role, and content as a string or as text parts. A part may be a bare string:
// OpenAI's are objects, vLLM takes both.
import * as z from 'zod';
import * as field from './fields.ts';

const contentRule = 'must be a string or a list of text parts';

const part = z.union([z.string(), z.looseObject({ type: z.string() })], { error: contentRule });

const message = z.looseObject(
  {
    role: field.text(64),
    name: z.string({ error: 'must be a string' }).nullish(),
    content: z.union([z.string(), z.array(part)], { error: contentRule }).nullish(),
  },
  { error: 'must be an object with role and content' },
);

export function messagesField(max: number) {
  const rule = `must be a list of 1 to ${max} messages`;
  return z
    .array(message, { error: (issue) => (issue.input === undefined ? 'is required' : rule) })
    .min(1, { error: rule })
    .max(max, { error: rule });
}

export type MessageInput = z.output<typeof message>;
