// Chat messages: a role, and content as a string or as text parts. A part may be a bare string:
// OpenAI's are objects, vLLM takes both.
import * as z from 'zod';
import { isObject, type Json } from '../../../common/json-object.ts';
import * as field from './fields.ts';

export type MessagePart = string | (Json & { readonly type: string });

/** Checked by hand: a union of schemas would not name the part that is wrong. */
const content = z.unknown().transform((value, context): string | readonly MessagePart[] => {
  if (typeof value === 'string') return value;
  const wrong = Array.isArray(value) ? value.findIndex((part) => !isPart(part)) : null;
  if (wrong === -1) return value as MessagePart[];
  context.addIssue(
    wrong === null
      ? { code: 'custom', message: 'must be a string or a list of text parts' }
      : { code: 'custom', message: 'must be a string or an object with a type', path: [wrong] },
  );
  return z.NEVER;
});

function isPart(part: unknown): part is MessagePart {
  return typeof part === 'string' || (isObject(part) && typeof part['type'] === 'string');
}

const message = z.looseObject(
  {
    role: field.text(64),
    name: z.string({ error: 'must be a string' }).nullish(),
    content: content.nullish(),
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
