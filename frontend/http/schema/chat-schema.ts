// POST /v1/chat/completions.
import * as z from 'zod';
import type { HttpLimits } from '../../../common/limits.ts';
import * as field from './fields.ts';
import { messagesField } from './message-schema.ts';
import type { RequestSchema } from './parse.ts';
import { acceptedFields, samplingFields, unsupportedFields } from './sampling-fields.ts';

const efforts = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const;
const reasoningEffort = z.enum(efforts, { error: `must be one of ${efforts.join(', ')}` });

const documentsRule = 'must be a list of objects whose values are strings';
const documents = z.array(z.record(z.string(), z.string(), { error: documentsRule }), {
  error: documentsRule,
});

const makeObject = (limits: HttpLimits) =>
  z.object({
    ...samplingFields(limits),
    messages: messagesField(limits.messages),
    max_tokens: field.integer(1, field.maxInt32).optional(),
    max_completion_tokens: field.integer(1, field.maxInt32).optional(),
    logprobs: field.boolean().optional(),
    top_logprobs: field.integer(-1, field.maxInt32).optional(),
    add_generation_prompt: field.boolean().optional(),
    continue_final_message: field.boolean().optional(),
    add_special_tokens: field.boolean().optional(),
    chat_template_kwargs: field.object().optional(),
    reasoning_effort: reasoningEffort.optional(),
    documents: documents.optional(),
    return_prompt_text: field.boolean().optional(),
    tools: z.unknown().optional(),
    tool_choice: z.unknown().optional(),
  });

export const makeChatSchema = (limits: HttpLimits) =>
  ({
    object: makeObject(limits),
    unsupported: {
      ...unsupportedFields,
      chat_template: () => false,
      functions: () => false,
      function_call: (value: unknown) => value === 'none',
      include_reasoning: (value: unknown) => value === true,
      mm_processor_kwargs: () => false,
      media_io_kwargs: () => false,
      modalities: (value: unknown) =>
        Array.isArray(value) && value.every((modality) => modality === 'text'),
      audio: () => false,
      prediction: () => false,
      web_search_options: () => false,
    },
    // Parallel tool calls are nothing without tools.
    accepted: [...acceptedFields, 'parallel_tool_calls'],
  }) satisfies RequestSchema<ReturnType<typeof makeObject>['shape']>;

export type ChatSchema = ReturnType<typeof makeChatSchema>;
export type ChatRequest = z.output<ChatSchema['object']>;
