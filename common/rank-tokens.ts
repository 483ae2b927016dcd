// What ranks on several hosts show each other when they connect: 32 bytes for each direction and
// each of a pair's two connections, all from one secret of their generation, so that a token that
// was overheard opens nothing else.
import { createHmac } from 'node:crypto';

/** Of HMAC-SHA512: a token for a pair's data connection, then one for its news. */
const pairBytes = 64;

export interface RankTokens {
  /** [numRanks][2][32], by the other rank. */
  readonly shownTokens: Uint8Array;
  readonly expectedTokens: Uint8Array;
}

export function rankTokens(secret: string, rank: number, numRanks: number): RankTokens {
  const shownTokens = new Uint8Array(numRanks * pairBytes);
  const expectedTokens = new Uint8Array(numRanks * pairBytes);
  for (let other = 0; other < numRanks; other++) {
    shownTokens.set(pairTokens(secret, rank, other), other * pairBytes);
    expectedTokens.set(pairTokens(secret, other, rank), other * pairBytes);
  }
  return { shownTokens, expectedTokens };
}

function pairTokens(secret: string, from: number, to: number): Uint8Array {
  return createHmac('sha512', secret).update(`rank ${from} to ${to}`).digest();
}
