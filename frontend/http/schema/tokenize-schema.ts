// POST /tokenize (of a prompt or of a conversation) and POST /detokenize.
import * as z from 'zod';
import type { HttpLimits } from '../../../common/limits.ts';
import * as field from './fields.ts';
import { messagesField } from './message-schema.ts';
import type { RequestSchema } from './parse.ts';

const makeTokenizeObject = (limits: HttpLimits) =>
  z.object({
    model: field.name().optional(),
    prompt: field.string().optional(),
    messages: messagesField(limits.messages).optional(),
    add_special_tokens: field.boolean().optional(),
    allow_special_tokens: field.boolean().optional(),
    add_generation_prompt: field.boolean().optional(),
    continue_final_message: field.boolean().optional(),
    chat_template_kwargs: field.object().optional(),
    return_token_strs: field.boolean().optional(),
  });

export const makeTokenizeSchema = (limits: HttpLimits) =>
  ({
    object: makeTokenizeObject(limits),
    unsupported: {
      tools: () => false,
      chat_template: () => false,
    },
    accepted: [],
  }) satisfies RequestSchema<ReturnType<typeof makeTokenizeObject>['shape']>;

const makeDetokenizeObject = (limits: HttpLimits) =>
  z.object({
    model: field.name().optional(),
    tokens: field.tokenIds(0, limits.decodeIds),
  });

export const makeDetokenizeSchema = (limits: HttpLimits) =>
  ({
    object: makeDetokenizeObject(limits),
    unsupported: {},
    accepted: [],
  }) satisfies RequestSchema<ReturnType<typeof makeDetokenizeObject>['shape']>;

export type TokenizeSchema = ReturnType<typeof makeTokenizeSchema>;
export type DetokenizeSchema = ReturnType<typeof makeDetokenizeSchema>;
