// Specs of the link between the nodes of one server.
import * as field from './fields.ts';
import type * as m from './messages.ts';
import { hello, refused, type LinkSpec } from './specs-common.ts';

const { u32, counter, integer, string, nullable, record } = field;

const memory = record({ totalBytes: counter, availableBytes: counter });

export const nodeToHead: LinkSpec<m.NodeToHead> = {
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
      hostMemory: memory,
    },
    columns: null,
  },
  rankExited: {
    fields: {
      index: u32,
      generation: u32,
      exitCode: nullable(integer),
      signal: nullable(string),
      hostMemory: memory,
    },
    columns: null,
  },
};

export const headToNode: LinkSpec<m.HeadToNode> = {
  nodeWelcome: { fields: {}, columns: null },
  refused,
  startRank: { fields: { index: u32, generation: u32, token: string }, columns: null },
  killRank: { fields: { index: u32, generation: u32 }, columns: null },
  endNode: { fields: { exitCode: integer, message: string }, columns: null },
};
