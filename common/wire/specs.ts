// What a message of each kind must look like, link by link: one check a field, and the rules of its
// columns. The compiler holds this to messages.ts: a kind or a field without a check is an error.
import {
  detokenizerToFrontend,
  engineToFrontend,
  frontendToDetokenizer,
  frontendToEngine,
} from './specs-frontend.ts';
import { headToNode, nodeToHead } from './specs-nodes.ts';
import {
  detokenizerToEngine,
  engineToDetokenizer,
  engineToWorker,
  processToSupervisor,
  supervisorToProcess,
  workerToEngine,
} from './specs-server.ts';

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
