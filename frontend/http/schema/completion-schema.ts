// POST /v1/completions.
import { z } from 'zod';
import * as field from './fields.ts';
import { acceptedFields, samplingFields, unsupportedFields } from './sampling-fields.ts';
import type { Parsed, RequestSchema } from './parse.ts';

/** Prompts of one request; with n choices each. */
export const maxPrompts = 1024;

export type Prompt = string | readonly number[];

const promptRule =
  'must be a string, a list of token ids, or a list of 1 to ' +
  `${maxPrompts} strings or lists of token ids`;

/** Always a list of prompts. Checked by hand: one object per token id would be dear. */
const prompts = z.unknown().transform((value, context): readonly Prompt[] => {
  if (typeof value === 'string') return [value];
  if (isTokenIds(value)) return [value];
  if (Array.isArray(value) && value.length >= 1 && value.length <= maxPrompts) {
    if (value.every((item) => typeof item === 'string') || value.every(isTokenIds)) {
      return value;
    }
  }
  context.addIssue({ code: 'custom', message: value === undefined ? 'is required' : promptRule });
  return z.NEVER;
});

function isTokenIds(value: unknown): value is readonly number[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((id) => Number.isInteger(id) && id >= 0 && id <= field.maxInt32)
  );
}

const object = z.object({
  ...samplingFields,
  prompt: prompts,
  add_special_tokens: field.boolean().optional(),
  max_tokens: field.integer(0, field.maxInt32).optional(),
  logprobs: field.integer(0, field.maxInt32).optional(),
});

export const completionSchema = {
  object,
  unsupported: { ...unsupportedFields, suffix: (value: unknown) => value === '' },
  accepted: acceptedFields,
} satisfies RequestSchema<typeof object.shape>;

export type CompletionRequest = z.output<typeof object>;
export type ParsedCompletion = Parsed<CompletionRequest>;
