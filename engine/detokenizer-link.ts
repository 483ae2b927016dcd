// The engine's DEALER to the detokenizer. A detokenizer that was replaced has a new address; one that
// has not welcomed this engine is not spoken to.
import { WireError } from '../common/errors.ts';
import { makeHello } from '../common/wire/handshake.ts';
import type { DetokenizerToEngine, EngineToDetokenizer } from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import { DealerLink } from '../common/wire/transport.ts';

export interface DetokenizerLinkOptions {
  readonly token: string;
  readonly generation: number;
  readonly welcomed: () => void;
  /** May throw WireError. */
  readonly message: (message: DetokenizerToEngine) => void;
  /** It refused this engine, or sent what is no message. */
  readonly failed: (error: Error) => void;
}

export class DetokenizerLink {
  private link: DealerLink | null = null;
  private readonly options: DetokenizerLinkOptions;

  constructor(options: DetokenizerLinkOptions) {
    this.options = options;
  }

  connect(address: string): void {
    this.close();
    const { token, generation, failed } = this.options;
    const link: DealerLink = new DealerLink(address, makeHello('engine', 0, generation, token), {
      message: (any) => {
        if (this.link !== link) return;
        const message = receive('detokenizerToEngine', any);
        if (message.kind === 'welcome') this.options.welcomed();
        else if (message.kind === 'refused')
          failed(new WireError(`detokenizer: ${message.message}`));
        else this.options.message(message);
      },
      rejected: failed,
    });
    this.link = link;
  }

  send(message: EngineToDetokenizer): void {
    this.link?.send(message);
  }

  close(): void {
    this.link?.close();
    this.link = null;
  }
}
