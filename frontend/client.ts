// What `vllm-ts/client` exports: everything to attach a frontend of one's own to a running server.
export {
  errorCodes,
  RequestError,
  StartError,
  type ErrorCode,
  type ErrorInfo,
} from '../common/errors.ts';
export {
  defaultSamplingParams,
  defaultTextParams,
  type DefaultSampling,
  type SamplingParams,
  type TextParams,
} from '../common/sampling-params.ts';
export type { EngineStatus, EngineWelcome, FinishReason } from '../common/wire/messages.ts';
export { EngineClient, type EngineClientEvents } from './engine-client.ts';
export type { ConnectOptions } from './engine-client-options.ts';
export type { OpenRequestHandle } from './engine-client-requests.ts';
export type { GenerateRequest, RequestHandle, RequestOutput } from './engine-client-types.ts';
export type { LogprobColumns, LogprobList, TokenLogprobs } from './logprob-list.ts';
