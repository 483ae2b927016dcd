// What a message of each kind must look like, link by link: one check a field, and the rules of its
// columns. The compiler holds this to messages.ts: a kind or a field without a check is an error.
import { errorCodes } from '../errors.ts';
import { checkLength } from './check-columns.ts';
import { checkTextOutputs, checkTokenOutputs } from './check-outputs.ts';
import { checkStepInput, checkStepOutput } from './check-step.ts';
import { checkColumns, type Columns } from './columns.ts';
import * as field from './fields.ts';
import * as m from './messages.ts';

const { u32, counter, integer, number, string, boolean, nullable, optional } = field;
const { list, map, record } = field;

export interface Spec<T> {
  readonly fields: field.FieldChecks<T>;
  /** Present exactly where the message has columns; gives them back, complete. */
  readonly columns: T extends { readonly columns: unknown }
    ? (columns: Columns, message: Readonly<Record<string, unknown>>) => Columns
    : null;
}

export type LinkSpec<Union extends { readonly kind: string }> = {
  readonly [K in Union['kind']]: Spec<Extract<Union, { readonly kind: K }>>;
};

const roles = ['supervisor', 'node', 'frontend', 'engine', 'worker', 'detokenizer'] as const;
const role = field.oneOf(...roles);
const errorInfo = record({ code: field.oneOf(...Object.keys(errorCodes)), message: string });
const rowErrors = list(record({ row: u32, error: errorInfo }));
const peer = { role, index: u32, generation: u32 };

const hello: Spec<m.Hello> = {
  fields: {
    protocol: u32,
    token: string,
    role: field.oneOf(...roles, 'client'),
    index: u32,
    generation: u32,
    build: nullable(string),
    pid: u32,
  },
  columns: null,
};
const refused: Spec<m.Refused> = {
  fields: { message: string, protocol: u32, build: nullable(string) },
  columns: null,
};
const peerLost: Spec<m.PeerLost> = { fields: peer, columns: null };
const peerReady: Spec<m.PeerReady> = {
  fields: { ...peer, addresses: field.mapOf(string) },
  columns: null,
};
const plainWelcome: Spec<m.DetokenizerWelcome> = {
  fields: { protocol: u32, generation: u32 },
  columns: null,
};

const frontendToEngine: LinkSpec<m.FrontendToEngine> = {
  hello,
  addRequest: {
    // What sampling and text hold is judged at the engine's door, where a mistake is answered.
    fields: {
      requestId: u32,
      n: u32,
      sampling: map,
      text: map,
      priority: integer,
      cacheSalt: nullable(string),
    },
    columns: (columns) => checkColumns(columns, m.addRequestColumns),
  },
  abort: { fields: {}, columns: (columns) => checkColumns(columns, m.abortColumns) },
  utility: { fields: { callId: u32, method: string, args: map }, columns: null },
};

const engineToFrontend: LinkSpec<m.EngineToFrontend> = {
  welcome: {
    fields: {
      protocol: u32,
      frontendId: u32,
      attachKey: string,
      generation: u32,
      model: string,
      device: string,
      vocabSize: u32,
      maxModelLen: u32,
      maxLogprobs: u32,
      maxNumSeqs: u32,
      blockSize: u32,
      numBlocks: u32,
      eosTokenIds: list(u32),
      priorityScheduling: boolean,
      limits: record({
        n: u32,
        stop: u32,
        stopBytes: u32,
        stopTokenIds: u32,
        logitBias: u32,
        badWords: u32,
        badWordTokens: u32,
        cacheSaltBytes: u32,
      }),
      defaultSampling: map,
    },
    columns: null,
  },
  refused,
  accepted: { fields: { requestId: u32, n: u32 }, columns: null },
  rejected: { fields: { requestId: u32, n: u32, error: errorInfo }, columns: null },
  utilityReply: {
    fields: { callId: u32, result: field.anything, error: nullable(errorInfo) },
    columns: null,
  },
  status: {
    fields: {
      step: counter,
      numRunning: u32,
      numWaiting: u32,
      kvCacheUsage: number,
      numPreemptions: counter,
      promptTokens: counter,
      generationTokens: counter,
      prefixCacheQueries: counter,
      prefixCacheHits: counter,
      deviceBusyMs: number,
      deviceIdleMs: number,
      cachedPromptTokens: counter,
      numInvalidLogits: counter,
      histograms: field.mapOf(record({ bounds: list(number), counts: list(counter), sum: number })),
      stalledMs: number,
    },
    columns: null,
  },
  peerLost,
  peerReady,
};

const engineToDetokenizer: LinkSpec<m.EngineToDetokenizer> = {
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

const detokenizerToEngine: LinkSpec<m.DetokenizerToEngine> = {
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

const frontendToDetokenizer: LinkSpec<m.FrontendToDetokenizer> = {
  hello,
  attach: { fields: { frontendId: u32, attachKey: string, creditBytes: u32 }, columns: null },
  credit: {
    fields: { bytes: u32 },
    columns: (columns) => {
      const c = checkColumns(columns, m.creditColumns);
      checkLength(c, c.requestId.length, 'bytes');
      return c;
    },
  },
  tokenize: {
    fields: {
      callId: u32,
      text: string,
      addSpecialTokens: boolean,
      allowSpecialTokens: optional(boolean),
    },
    columns: null,
  },
  applyChatTemplate: {
    fields: {
      callId: u32,
      messages: list(record({ role: string, content: string, name: optional(string) })),
      addGenerationPrompt: boolean,
      continueFinalMessage: boolean,
      addSpecialTokens: boolean,
      templateArgs: map,
    },
    columns: null,
  },
  detokenize: {
    fields: { callId: u32, skipSpecialTokens: boolean },
    columns: (columns) => checkColumns(columns, m.detokenizeColumns),
  },
};

const detokenizerToFrontend: LinkSpec<m.DetokenizerToFrontend> = {
  welcome: plainWelcome,
  refused,
  attached: { fields: { frontendId: u32 }, columns: null },
  textOutputs: {
    fields: { step: counter, generation: u32, errors: rowErrors },
    columns: (columns) => checkTextOutputs(columns),
  },
  textReply: {
    fields: { callId: u32, text: nullable(string), error: nullable(errorInfo) },
    columns: (columns) => checkColumns(columns, m.textReplyColumns),
  },
  peerLost,
};

const workerToEngine: LinkSpec<m.WorkerToEngine> = {
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

const engineToWorker: LinkSpec<m.EngineToWorker> = {
  welcome: plainWelcome,
  refused,
  stepInput: {
    fields: { step: counter, generation: u32, numTokens: u32, connectorMeta: field.nothing },
    columns: (columns, { numTokens }) => checkStepInput(columns, numTokens as number),
  },
};

const supervisorToProcess: LinkSpec<m.SupervisorToProcess> = {
  config: { fields: { config: map }, columns: null },
  refused,
  drain: { fields: { timeoutMs: number }, columns: null },
  stop: { fields: {}, columns: null },
  peerLost,
  peerReady,
};

const processToSupervisor: LinkSpec<m.ProcessToSupervisor> = {
  hello,
  ready: { fields: { ...peer, info: map }, columns: null },
  alive: { fields: {}, columns: null },
  drained: { fields: {}, columns: null },
  fatal: { fields: { exitCode: integer, message: string }, columns: null },
  replacePeer: { fields: { ...peer, reason: string }, columns: null },
};

const nodeToHead: LinkSpec<m.NodeToHead> = {
  hello,
  nodeJoin: {
    fields: {
      nodeRank: u32,
      numNodes: u32,
      numRanks: u32,
      arch: string,
      address: string,
      modelPath: string,
      configHash: string,
      weightsHash: string,
      numThreads: u32,
    },
    columns: null,
  },
  rankExited: {
    fields: {
      index: u32,
      generation: u32,
      exitCode: nullable(integer),
      signal: nullable(string),
    },
    columns: null,
  },
};

const headToNode: LinkSpec<m.HeadToNode> = {
  nodeWelcome: { fields: {}, columns: null },
  refused,
  startRank: { fields: { index: u32, generation: u32, token: string }, columns: null },
  killRank: { fields: { index: u32, generation: u32 }, columns: null },
  endNode: { fields: { exitCode: integer, message: string }, columns: null },
};

/** By link and direction. */
export const specs = {
  frontendToEngine,
  engineToFrontend,
  engineToDetokenizer,
  detokenizerToEngine,
  frontendToDetokenizer,
  detokenizerToFrontend,
  workerToEngine,
  engineToWorker,
  supervisorToProcess,
  processToSupervisor,
  nodeToHead,
  headToNode,
} as const;
