// Specs of the link between the nodes of one server.
import * as field from './fields.ts';
import type * as m from './messages.ts';
import { hello, refused, type LinkSpec } from './specs-common.ts';

const { u32, integer, string, nullable } = field;

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

export const headToNode: LinkSpec<m.HeadToNode> = {
  nodeWelcome: { fields: {}, columns: null },
  refused,
  startRank: { fields: { index: u32, generation: u32, token: string }, columns: null },
  killRank: { fields: { index: u32, generation: u32 }, columns: null },
  endNode: { fields: { exitCode: integer, message: string }, columns: null },
};
