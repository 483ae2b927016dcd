// An address as URLs and ZeroMQ write it: IPv6 in brackets.
import { isIP } from 'node:net';

export function hostPort(host: string, port: number): string {
  return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}
