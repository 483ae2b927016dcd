// What the engine asks of whoever runs it: messages out, processes replaced, the time. In the engine's
// process these are sockets; in tests and simulations, calls on virtual time.
import type {
  EngineStatus,
  EngineToFrontend,
  StepInput,
  TokenOutputs,
} from '../common/wire/messages.ts';

export interface EnginePorts {
  toFrontend(frontendId: number, message: EngineToFrontend): void;
  toAllFrontends(message: EngineToFrontend): void;
  /** To those whom it concerns. */
  statusToFrontends(message: EngineStatus): void;
  /** To every rank. The columns are reused: they are valid during the call. */
  toWorkers(message: StepInput): void;
  /** The columns are reused: they are valid during the call. */
  toDetokenizer(message: TokenOutputs): void;
  /** Nothing counts any more that the workers which are connected now may still send. */
  forgetWorkers(): void;
  /** The worker must be killed and started again, and with it all others. */
  replaceWorker(rank: number, generation: number, reason: string): void;
  /** The detokenizer must be killed and started again. */
  replaceDetokenizer(reason: string): void;
  /** run() should be called soon; asked for once until it was. */
  wake(): void;
  /** CLOCK_MONOTONIC, as workers report it. */
  nowUs(): number;
}
