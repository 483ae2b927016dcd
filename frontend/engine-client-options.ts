// Where a server is: given in words, or read from the frontend.json that it wrote.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { FrontendJson } from '../common/config.ts';
import { exitCodes, StartError } from '../common/errors.ts';
import { protocolVersion } from '../common/wire/messages.ts';

export interface ConnectOptions {
  /** ipc:// or tcp:// addresses of the two processes that a frontend speaks to. */
  readonly engine: string;
  readonly detokenizer: string;
  /** Per-boot token of the server. */
  readonly token: string;
  /** 'frontend' is for the server's own processes; everybody else is a 'client' (the default). */
  readonly role?: 'frontend' | 'client';
  readonly index?: number;
  readonly generation?: number;
  /** Public CURVE keys of the two, for tcp; our own pair is made afresh. */
  readonly engineKey?: string | null;
  readonly detokenizerKey?: string | null;
  /** How long both may take to answer. Default 10,000. */
  readonly timeoutMs?: number;
  /** Credit in all: bytes of output that may be on their way to us. Default 64 MiB. */
  readonly creditBytes?: number;
}

export type ResolvedOptions = Required<ConnectOptions>;

/** `where` is options, or the path of a frontend.json or of the folder that holds one. */
export function resolveOptions(where: ConnectOptions | string): ResolvedOptions {
  const given = typeof where === 'string' ? readFrontendJson(where) : where;
  return {
    role: 'client',
    index: 0,
    generation: 0,
    engineKey: null,
    detokenizerKey: null,
    timeoutMs: 10_000,
    creditBytes: 64 * 1024 * 1024,
    ...given,
  };
}

/** Throws StartError if the server speaks another version, an Error that names a bad file. */
export function readFrontendJson(path: string): FrontendJson {
  const file = statSync(path).isDirectory() ? join(path, 'frontend.json') : path;
  const json = JSON.parse(readFileSync(file, 'utf8')) as Partial<FrontendJson>;
  const { protocol, engine, detokenizer, token, engineKey, detokenizerKey } = json;
  if (protocol !== protocolVersion)
    throw new StartError(
      exitCodes.versionMismatch,
      `${file}: protocol version ${String(protocol)} does not match ${protocolVersion}`,
    );
  for (const [name, value] of Object.entries({ engine, detokenizer, token }))
    if (typeof value !== 'string') throw new Error(`${file}: ${name} is not a string`);
  for (const [name, value] of Object.entries({ engineKey, detokenizerKey }))
    if (value !== null && typeof value !== 'string')
      throw new Error(`${file}: ${name} is neither null nor a key`);
  return json as FrontendJson;
}
