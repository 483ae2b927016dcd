// Specs of what frontends say and hear: on their links to the engine and to the detokenizer.
import { checkLength } from './check-columns.ts';
import { checkTextOutputs } from './check-outputs.ts';
import { checkColumns } from './columns.ts';
import * as field from './fields.ts';
import * as m from './messages.ts';
import {
  errorInfo,
  hello,
  peerLost,
  peerReady,
  plainWelcome,
  refused,
  rowErrors,
  type LinkSpec,
} from './specs-common.ts';

const { u32, counter, integer, number, string, boolean, nullable, optional, list, map, record } =
  field;

export const frontendToEngine: LinkSpec<m.FrontendToEngine> = {
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

export const engineToFrontend: LinkSpec<m.EngineToFrontend> = {
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

export const frontendToDetokenizer: LinkSpec<m.FrontendToDetokenizer> = {
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

export const detokenizerToFrontend: LinkSpec<m.DetokenizerToFrontend> = {
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
