// Who may attach as which frontend: only a peer that shows the key that the engine gave that
// frontend. The engine's introduction and the Attach come over different links, in any order; an
// Attach that is early waits, for a while and among a bounded number of others.
import { timingSafeEqual } from 'node:crypto';
import type { Attach } from '../common/wire/messages.ts';
import type { PeerId } from '../common/wire/transport.ts';

const maxWaiting = 1024;
const waitMs = 30_000;

export type Verdict = 'attached' | 'waiting' | 'refused';

interface Waiting {
  readonly attach: Attach;
  readonly until: number;
}

export class Attachments {
  private readonly waiting = new Map<PeerId, Waiting>();

  /** `key` is the frontend's, null when the engine has not introduced it yet. */
  judge(peer: PeerId, attach: Attach, key: string | null, now: number): Verdict {
    this.waiting.delete(peer);
    if (key !== null) return sameText(key, attach.attachKey) ? 'attached' : 'refused';
    if (this.waiting.size >= maxWaiting) return 'refused';
    this.waiting.set(peer, { attach, until: now + waitMs });
    return 'waiting';
  }

  /** Takes out those that wait for this frontend. */
  take(frontendId: number): [PeerId, Attach][] {
    return this.takeWhere(({ attach }) => attach.frontendId === frontendId);
  }

  /** Takes out those that have waited too long. */
  takeExpired(now: number): [PeerId, Attach][] {
    return this.takeWhere(({ until }) => now >= until);
  }

  peerGone(peer: PeerId): void {
    this.waiting.delete(peer);
  }

  private takeWhere(matches: (entry: Waiting) => boolean): [PeerId, Attach][] {
    const taken: [PeerId, Attach][] = [];
    for (const [peer, entry] of this.waiting) {
      if (!matches(entry)) continue;
      this.waiting.delete(peer);
      taken.push([peer, entry.attach]);
    }
    return taken;
  }
}

function sameText(a: string, b: string): boolean {
  const x = Buffer.from(a);
  const y = Buffer.from(b);
  return x.length === y.length && timingSafeEqual(x, y);
}
