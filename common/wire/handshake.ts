// Who may speak on a link: the first message of a peer is a Hello with the protocol version, the
// per-boot token and, between our own processes, the build hash. A mismatch is refused with both
// versions named.
import { timingSafeEqual } from 'node:crypto';
import { buildId } from '../build-id.ts';
import { protocolVersion, type Hello, type Refused, type Role } from './messages.ts';
import type { AnyMessage } from './codec.ts';

export function makeHello(
  role: Hello['role'],
  index: number,
  generation: number,
  token: string,
): Hello {
  const build = role === 'client' ? null : buildId;
  return {
    kind: 'hello',
    protocol: protocolVersion,
    token,
    role,
    index,
    generation,
    build,
    pid: process.pid,
  };
}

export interface HelloRules {
  readonly token: string;
  readonly roles: readonly (Role | 'client')[];
}

/** Returns the Hello, or the refusal to send back. */
export function checkHello(message: AnyMessage, rules: HelloRules): Hello | Refused {
  const hello = message as unknown as Hello;
  if (message.kind !== 'hello') return refuse('the first message must be hello');
  if (hello.protocol !== protocolVersion)
    return refuse(`protocol version ${hello.protocol} does not match ${protocolVersion}`);
  if (typeof hello.token !== 'string' || !sameText(hello.token, rules.token))
    return refuse('wrong token');
  if (!rules.roles.includes(hello.role)) return refuse(`role ${hello.role} may not connect here`);
  if (hello.role !== 'client' && hello.build !== buildId)
    return refuse(`build ${hello.build} does not match ${buildId}`);
  if (!Number.isInteger(hello.index) || !Number.isInteger(hello.generation))
    return refuse('index and generation must be integers');
  return hello;
}

function refuse(message: string): Refused {
  return { kind: 'refused', message, protocol: protocolVersion, build: buildId };
}

function sameText(a: string, b: string): boolean {
  const x = Buffer.from(a);
  const y = Buffer.from(b);
  return x.length === y.length && timingSafeEqual(x, y);
}
