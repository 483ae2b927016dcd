// POST /v1/completions.
import * as z from 'zod';
import type { HttpLimits } from '../../../common/limits.ts';
import * as field from './fields.ts';
import { acceptedFields, samplingFields, unsupportedFields } from './sampling-fields.ts';
import type { RequestSchema } from './parse.ts';

export type Prompt = string | readonly number[];

const promptRule = (max: number) =>
  'must be a string, a list of token ids, or a list of 1 to ' +
  `${max} strings or lists of token ids`;

/** Always a list of prompts. Checked by hand: one object per token id would be dear. */
const prompts = (max: number) =>
  z.unknown().transform((value, context): readonly Prompt[] => {
    if (typeof value === 'string') return [value];
    if (isTokenIds(value)) return [value];
    if (Array.isArray(value) && value.length >= 1 && value.length <= max) {
      if (value.every((item) => typeof item === 'string') || value.every(isTokenIds)) {
        return value;
      }
    }
    context.addIssue({
      code: 'custom',
      message: value === undefined ? 'is required' : promptRule(max),
    });
    return z.NEVER;
  });

function isTokenIds(value: unknown): value is readonly number[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((id) => Number.isInteger(id) && id >= 0 && id <= field.maxInt32)
  );
}

const makeObject = (limits: HttpLimits) =>
  z.object({
    ...samplingFields(limits),
    prompt: prompts(limits.choices),
    add_special_tokens: field.boolean().optional(),
    allow_special_tokens: field.boolean().optional(),
    max_tokens: field.integer(0, field.maxInt32).optional(),
    logprobs: field.integer(0, field.maxInt32).optional(),
  });

export const makeCompletionSchema = (limits: HttpLimits) =>
  ({
    object: makeObject(limits),
    unsupported: { ...unsupportedFields, suffix: (value: unknown) => value === '' },
    accepted: acceptedFields,
  }) satisfies RequestSchema<ReturnType<typeof makeObject>['shape']>;

export type CompletionSchema = ReturnType<typeof makeCompletionSchema>;
export type CompletionRequest = z.output<CompletionSchema['object']>;
