// Who may ask: API keys, compared as digests in constant time.
import { createHash, timingSafeEqual } from 'node:crypto';

export type KeyCheck = (authorization: string | undefined) => boolean;

/** No keys: everybody may. */
export function createKeyCheck(apiKeys: readonly string[]): KeyCheck {
  if (apiKeys.length === 0) return () => true;
  const digests = apiKeys.map(sha256);
  return (authorization) => {
    const match = /^Bearer +(\S+) *$/i.exec(authorization ?? '');
    const digest = sha256(match?.[1] ?? '');
    // Every key is compared, so that the time does not tell which one is near.
    let found = false;
    for (const known of digests) found = timingSafeEqual(known, digest) || found;
    return found && match !== null;
  };
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
