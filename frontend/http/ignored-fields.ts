// Fields that had no effect are named in X-Ignored-Fields, or refused with --strict-api.
import type { FastifyReply } from 'fastify';
import { RequestError } from '../../common/errors.ts';

const maxNames = 20;
const maxHeaderBytes = 1024;

export function reportIgnored(reply: FastifyReply, ignored: readonly string[], strict: boolean) {
  const first = ignored[0]?.slice(0, 64);
  if (first === undefined) return;
  if (strict) {
    throw new RequestError('bad_request', `${JSON.stringify(first)} is not a known field`, first);
  }
  const header = toHeader(ignored);
  if (header !== '') reply.header('x-ignored-fields', header);
}

/** Percent-encoded: a client's text in a header could be anything. */
function toHeader(names: readonly string[]): string {
  let header = '';
  for (const name of names.slice(0, maxNames)) {
    const encoded = encodeURIComponent(Buffer.from(name).toString());
    const longer = header === '' ? encoded : `${header}, ${encoded}`;
    if (longer.length > maxHeaderBytes) break;
    header = longer;
  }
  return header;
}
