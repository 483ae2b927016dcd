// POST /tokenize (of a prompt or of a conversation) and POST /detokenize.
import * as z from 'zod';
import * as field from './fields.ts';
import { messagesField } from './message-schema.ts';
import type { RequestSchema } from './parse.ts';

const object = z.object({
  model: field.text(1024).optional(),
  prompt: z.string({ error: 'must be a string' }).optional(),
  messages: messagesField.optional(),
  add_special_tokens: field.boolean().optional(),
  add_generation_prompt: field.boolean().optional(),
  continue_final_message: field.boolean().optional(),
  chat_template_kwargs: field.object().optional(),
});

const unless = (value: unknown) => (given: unknown) => given === value;

export const tokenizeSchema = {
  object,
  unsupported: {
    return_token_strs: unless(false),
    tools: () => false,
    chat_template: () => false,
  },
  accepted: [],
} satisfies RequestSchema<typeof object.shape>;

const detokenizeObject = z.object({
  model: field.text(1024).optional(),
  tokens: field.tokenIds(0, 1_000_000),
});

export const detokenizeSchema = {
  object: detokenizeObject,
  unsupported: {},
  accepted: [],
} satisfies RequestSchema<typeof detokenizeObject.shape>;
