// Which hosts and web origins may talk to the server: a server on loopback answers only to loopback
// names (DNS rebinding), and a web page only where its origin is allowed (CORS).
const loopbackName = /^(localhost|127(\.\d{1,3}){3}|\[::1\]|\[::ffff:127(\.\d{1,3}){3}\])$/i;

export function isLoopbackHost(host: string | undefined): boolean {
  // Only HTTP/1.0 may leave it out, and no browser speaks that.
  if (host === undefined) return true;
  return loopbackName.test(host.replace(/:\d{1,5}$/, ''));
}

export type OriginCheck = (origin: string) => boolean;

/** allowed: ['*'], or origins; empty = loopback origins. */
export function createOriginCheck(allowed: readonly string[]): OriginCheck {
  if (allowed.includes('*')) return () => true;
  if (allowed.length > 0) {
    const set = new Set(allowed.map((origin) => origin.toLowerCase().replace(/\/$/, '')));
    return (origin) => set.has(origin.toLowerCase());
  }
  return (origin) => {
    const match = /^https?:\/\/([^/@]+)$/i.exec(origin);
    return match !== null && isLoopbackHost(match[1]);
  };
}

/** Headers of every answer to an allowed origin. */
export function corsHeaders(origin: string): Record<string, string> {
  return {
    'access-control-allow-origin': origin,
    'access-control-expose-headers': 'X-Request-Id, X-Ignored-Fields, Retry-After',
    vary: 'Origin',
  };
}

/** Headers of the answer to a preflight request. */
export function preflightHeaders(requestedHeaders: string | undefined): Record<string, string> {
  const asked = requestedHeaders ?? '';
  return {
    'access-control-allow-methods': 'GET, HEAD, POST, OPTIONS',
    'access-control-allow-headers': /^[\w\-, ]{1,2048}$/.test(asked)
      ? asked
      : 'Authorization, Content-Type, X-Request-Id',
    'access-control-max-age': '600',
  };
}
