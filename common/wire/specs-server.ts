// Specs of the links within a server: engine, detokenizer, workers, supervisor.
import { checkLength } from './check-columns.ts';
import { checkTokenOutputs } from './check-outputs.ts';
import { checkStepInput, checkStepOutput } from './check-step.ts';
import { checkColumns } from './columns.ts';
import * as field from './fields.ts';
import * as m from './messages.ts';
import {
  hello,
  peer,
  peerLost,
  peerReady,
  plainWelcome,
  refused,
  rowErrors,
  type LinkSpec,
} from './specs-common.ts';

const { u32, counter, integer, number, string, nullable, list, map, record } = field;

export const engineToDetokenizer: LinkSpec<m.EngineToDetokenizer> = {
  hello,
  frontendJoined: { fields: { frontendId: u32, attachKey: string }, columns: null },
  frontendLeft: { fields: { frontendId: u32 }, columns: null },
  tokenOutputs: {
    fields: {
      step: counter,
      generation: u32,
      newRequests: list(
        record({
          frontendId: u32,
          requestId: u32,
          text: map,
          numPromptTokens: u32,
          minTokens: u32,
          logprobs: nullable(u32),
          promptLogprobs: nullable(u32),
          lastPromptIds: list(u32),
        }),
      ),
      errors: rowErrors,
    },
    columns: (columns) => checkTokenOutputs(columns),
  },
};

export const detokenizerToEngine: LinkSpec<m.DetokenizerToEngine> = {
  welcome: plainWelcome,
  refused,
  stopRequest: {
    fields: {},
    columns: (columns) => {
      const c = checkColumns(columns, m.stopRequestColumns);
      checkLength(c, c.requestId.length, 'frontendId', 'numOutputTokens');
      return c;
    },
  },
  ack: { fields: { step: counter }, columns: null },
};

export const workerToEngine: LinkSpec<m.WorkerToEngine> = {
  hello,
  workerReady: {
    fields: {
      rank: u32,
      generation: u32,
      device: string,
      dtype: string,
      kvCacheDtype: string,
      numBlocks: u32,
      blockBytes: counter,
      vocabSize: u32,
      memory: field.mapOf(number),
    },
    columns: null,
  },
  stepOutput: {
    fields: {
      step: counter,
      generation: u32,
      rank: u32,
      hash: u32,
      startUs: number,
      endUs: number,
      deviceIdleUs: number,
    },
    columns: (columns) => checkStepOutput(columns),
  },
  heartbeat: { fields: { rank: u32, step: integer, opIndex: integer }, columns: null },
  workerFailed: {
    fields: {
      rank: u32,
      step: integer,
      op: nullable(string),
      blamedRank: nullable(u32),
      message: string,
    },
    columns: null,
  },
};

export const engineToWorker: LinkSpec<m.EngineToWorker> = {
  welcome: plainWelcome,
  refused,
  stepInput: {
    fields: { step: counter, generation: u32, numTokens: u32, connectorMeta: field.nothing },
    columns: (columns, { numTokens }) => checkStepInput(columns, numTokens as number),
  },
};

export const supervisorToProcess: LinkSpec<m.SupervisorToProcess> = {
  config: { fields: { config: map }, columns: null },
  refused,
  drain: { fields: { timeoutMs: number }, columns: null },
  stop: { fields: {}, columns: null },
  peerLost,
  peerReady,
};

export const processToSupervisor: LinkSpec<m.ProcessToSupervisor> = {
  hello,
  ready: { fields: { ...peer, info: map }, columns: null },
  alive: { fields: {}, columns: null },
  drained: { fields: {}, columns: null },
  fatal: { fields: { exitCode: integer, message: string }, columns: null },
  replacePeer: { fields: { ...peer, reason: string }, columns: null },
};
