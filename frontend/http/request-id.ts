// X-Request-Id: taken from the client where it is a plain token, made otherwise.
import { randomUUID } from 'node:crypto';

export function requestIdOf(header: string | string[] | undefined): string {
  if (typeof header === 'string' && /^[\w.:-]{1,128}$/.test(header)) return header;
  return randomUUID().replaceAll('-', '');
}
