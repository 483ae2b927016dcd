// What `vllm-ts` exports: the offline LLM class, and all of `vllm-ts/client`.
export * from './client.ts';
export {
  LLM,
  type ChatMessage,
  type LlmChoice,
  type LlmOptions,
  type LlmOutput,
  type Prompt,
} from './llm.ts';
export type { LlmParams } from './llm-params.ts';
