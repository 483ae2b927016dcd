// What specs of links are made of, and the messages that several links have.
import { errorCodes } from '../errors.ts';
import type { Columns } from './columns.ts';
import * as field from './fields.ts';
import type * as m from './messages.ts';

const { u32, string, nullable, list, record } = field;

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
export const errorInfo = record({ code: field.oneOf(...Object.keys(errorCodes)), message: string });
export const rowErrors = list(record({ row: u32, error: errorInfo }));
export const peer = { role, index: u32, generation: u32 };

export const hello: Spec<m.Hello> = {
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
export const refused: Spec<m.Refused> = {
  fields: { message: string, protocol: u32, build: nullable(string) },
  columns: null,
};
export const peerLost: Spec<m.PeerLost> = { fields: peer, columns: null };
export const peerReady: Spec<m.PeerReady> = {
  fields: { ...peer, addresses: field.mapOf(string) },
  columns: null,
};
export const plainWelcome: Spec<m.DetokenizerWelcome> = {
  fields: { protocol: u32, generation: u32 },
  columns: null,
};
