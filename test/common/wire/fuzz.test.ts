// Golden vectors, damaged: a receiver throws WireError or takes a message that is well-formed, and a
// peer that sends such bytes harms itself alone.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Dealer } from 'zeromq';
import { WireError } from '../../../common/errors.ts';
import { decodeMessage, encodeMessage } from '../../../common/wire/codec.ts';
import { receive, type LinkMessages } from '../../../common/wire/receive.ts';
import { RouterLink, type PeerId } from '../../../common/wire/transport.ts';
import { sampleMessages, samples } from '../../fixtures/wire/samples.ts';

let seed = 20;
const random = (n: number) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
};

/** A copy with some bytes flipped, cut off, or doubled, or with a frame less or more. */
function damaged(frames: readonly Uint8Array[]): Uint8Array[] {
  const copy = frames.map((frame) => Uint8Array.from(frame));
  const which = random(copy.length);
  const frame = copy[which]!;
  switch (random(5)) {
    case 0:
      copy[which] = frame.slice(0, random(frame.length + 1));
      break;
    case 1:
      copy[which] = Uint8Array.of(...frame, ...frame.slice(0, 1 + random(16)));
      break;
    case 2:
      if (random(2) === 0) copy.pop();
      else copy.push(frame);
      break;
    default:
      for (let k = random(3); k >= 0 && frame.length > 0; k--)
        frame[random(frame.length)] = random(256);
  }
  return copy;
}

t.test('damaged vectors throw WireError or are well-formed', (t) => {
  let numRefused = 0;
  let numTaken = 0;
  for (const [link, messages] of Object.entries(sampleMessages))
    for (const message of Object.values(messages)) {
      const frames = encodeMessage(message);
      for (let i = 0; i < 400; i++) {
        const bytes = damaged(frames);
        try {
          receive(link as keyof LinkMessages, decodeMessage(bytes));
          numTaken++;
        } catch (error) {
          if (!(error instanceof WireError)) {
            t.fail(String(error), { bytes: bytes.map((b) => Buffer.from(b).toString('hex')) });
            return t.end();
          }
          numRefused++;
        }
      }
    }
  t.ok(numRefused > 5000, `${numRefused} refused`);
  t.ok(numTaken > 100, `${numTaken} taken`);
  t.end();
});

t.test('damaged frames on a live link drop their peer; others go on', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-'));
  const outcomes = new Map<PeerId, string>();
  let wake: () => void = () => undefined;
  const note = (peer: PeerId, outcome: string) => {
    outcomes.set(peer, outcome);
    wake();
  };
  const router = await RouterLink.bind(`ipc://${folder}/a.sock`, {
    message: (peer, message) => {
      const { kind } = receive('frontendToEngine', message);
      if (kind !== 'utility') return;
      router.send(peer, { kind: 'utilityReply' });
      note(peer, 'served');
    },
    disconnected: () => wake(),
    rejected: (peer) => note(peer, 'rejected'),
  });
  const until = async (condition: () => boolean) => {
    while (!condition()) await new Promise<void>((resolve) => (wake = resolve));
  };
  const connect = async () => {
    const socket = new Dealer({ linger: 0 });
    socket.connect(router.address);
    await socket.send(encodeMessage(samples.frontendToEngine.hello));
    return socket;
  };
  const call = encodeMessage(samples.frontendToEngine.utility);
  const good = await connect();
  let numRejected = 0;
  for (let i = 0; i < 60; i++) {
    const bad = await connect();
    const before = outcomes.size;
    await bad.send(damaged(encodeMessage(samples.frontendToEngine.addRequest)));
    // A damage that leaves a message well-formed is followed by a call that is served.
    await bad.send(call);
    await until(() => outcomes.size > before);
    numRejected += [...outcomes.values()].at(-1) === 'rejected' ? 1 : 0;
    bad.close();
    if (i % 10 !== 0) continue;
    await good.send(call);
    t.equal((await good.receive()).length, 1, 'the good peer is served');
  }
  t.ok(numRejected > 20, `${numRejected} of 60 rejected`);
  await until(() => router.numPeers === 1);
  t.equal(router.numPeers, 1, 'nobody but the good peer is left');
  good.close();
  router.close();
  rmSync(folder, { recursive: true });
});
