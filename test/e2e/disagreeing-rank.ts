// Loaded into every process of a server (node --import) by a test: rank 1 of the first generation
// then answers steps from some on with another hash, as if it had sampled other tokens.
import { processEnv } from '../../common/process.ts';
import type { WireMessage } from '../../common/wire/codec.ts';
import { DealerLink } from '../../common/wire/transport.ts';

const firstWrongStep = 8;
const { [processEnv.index]: index, [processEnv.generation]: generation } = process.env;
const isRank1 = /[/\\]worker[/\\]main\.js$/.test(process.argv[1] ?? '') && index === '1';

if (isRank1 && generation === '0') {
  // The rule fears a lost `this`; the method is called with its own below, by `send.call(this`.
  // eslint-disable-next-line @typescript-eslint/unbound-method
  const { send } = DealerLink.prototype;
  DealerLink.prototype.send = function (message: WireMessage): void {
    const { kind, step } = message as { kind: string; step?: number };
    const isWrong = kind === 'stepOutput' && step! >= firstWrongStep;
    send.call(this, isWrong ? { ...message, hash: 1 } : message);
  };
}
