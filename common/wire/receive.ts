// The one door through which a decoded message becomes one of ours: its kind belongs to the link,
// every field has its type, its columns fit each other. Use it first in every `message` handler of
// a link; the WireError that it throws there drops the peer. A stranger's hello goes through
// checkHello instead, which answers a mismatch of versions by name.
import { WireError } from '../errors.ts';
import type { AnyMessage } from './codec.ts';
import type { Columns } from './columns.ts';
import { checkFields, type Check } from './fields.ts';
import type * as m from './messages.ts';
import { specs } from './specs.ts';

export interface LinkMessages {
  frontendToEngine: m.FrontendToEngine;
  engineToFrontend: m.EngineToFrontend;
  engineToDetokenizer: m.EngineToDetokenizer;
  detokenizerToEngine: m.DetokenizerToEngine;
  frontendToDetokenizer: m.FrontendToDetokenizer;
  detokenizerToFrontend: m.DetokenizerToFrontend;
  workerToEngine: m.WorkerToEngine;
  engineToWorker: m.EngineToWorker;
  supervisorToProcess: m.SupervisorToProcess;
  processToSupervisor: m.ProcessToSupervisor;
  nodeToHead: m.NodeToHead;
  headToNode: m.HeadToNode;
}

interface AnySpec {
  readonly fields: Readonly<Record<string, Check>>;
  readonly columns: ((columns: Columns, message: AnyMessage) => Columns) | null;
}

/** Throws WireError, naming kind and field or column. */
export function receive<L extends keyof LinkMessages>(
  link: L,
  message: AnyMessage,
): LinkMessages[L];
export function receive(link: keyof LinkMessages, message: AnyMessage): unknown {
  const kinds = specs[link] as unknown as Readonly<Record<string, AnySpec>>;
  const { kind, columns } = message;
  if (!Object.hasOwn(kinds, kind)) throw new WireError(`kind ${kind} does not belong on this link`);
  const spec = kinds[kind]!;
  try {
    checkFields(message, spec.fields);
    if (spec.columns === null) {
      if (columns !== undefined) throw new WireError('it has columns');
    } else {
      if (columns === undefined) throw new WireError('its columns are missing');
      const checked = spec.columns(columns, message);
      if (checked !== columns) return { ...message, columns: checked };
    }
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new WireError(`${kind}: ${error.message}`);
  }
  return message;
}
