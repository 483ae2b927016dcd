// A message is one frame (msgpack header) or two (header, then a body that holds its columns).
// The header is a map with `kind` and the message's own fields; a message with columns also has
// `columns`, the table of where each one lies in the body. Messages of every step, which only our own
// processes see, leave out columns without elements: most of theirs have none most of the time.
import { WireError } from '../errors.ts';
import { packColumns, unpackColumns, type ColumnEntry, type Columns } from './columns.ts';
import { decodeHeader, encodeHeader } from './msgpack.ts';

export interface WireMessage {
  readonly kind: string;
  readonly columns?: Columns;
}

/** A decoded message whose kind and fields are not yet judged. */
export type AnyMessage = WireMessage & Record<string, unknown>;

export type Frames = Uint8Array[];

const kindsOfEveryStep: ReadonlySet<string> = new Set(['stepInput', 'stepOutput', 'tokenOutputs']);

/** Whether messages of this kind are sent without their empty columns; fillColumns restores them. */
export function leavesOutEmpty(kind: string): boolean {
  return kindsOfEveryStep.has(kind);
}

export function encodeMessage(message: WireMessage): Frames {
  if (!message.columns) return [encodeHeader(message)];
  const { table, body } = packColumns(message.columns, leavesOutEmpty(message.kind));
  return [encodeHeader({ ...message, columns: table }), body];
}

/** Throws WireError on anything that is not a well-formed message; the kind is not yet judged. */
export function decodeMessage(frames: readonly Uint8Array[]): AnyMessage {
  if (frames.length < 1 || frames.length > 2) throw new WireError(`${frames.length} frames`);
  const header = decodeHeader(frames[0]!);
  if (typeof header['kind'] !== 'string') throw new WireError('message without a kind');
  if (frames.length === 1) {
    if ('columns' in header) throw new WireError('column table without a body');
    return header as AnyMessage;
  }
  const columns = unpackColumns(header['columns'], frames[1]!);
  return { ...header, columns } as unknown as AnyMessage;
}

export type { ColumnEntry };
