import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  DealerLink,
  RouterLink,
  type AnyMessage,
  type PeerId,
} from '../../../common/wire/transport.ts';

const address = () => `ipc://${join(mkdtempSync(join(tmpdir(), 'vt-')), 'a.sock')}`;

t.test('RouterLink answers a peer and notices that it left', async (t) => {
  const seen: string[] = [];
  let gone!: (peer: PeerId) => void;
  const left = new Promise<PeerId>((resolve) => (gone = resolve));
  const router = await RouterLink.bind(address(), {
    message: (peer, message) => {
      seen.push(message.kind);
      router.send(peer, { kind: 'echo', columns: { a: Int32Array.of(seen.length) } });
    },
    disconnected: gone,
    rejected: () => t.fail('rejected'),
  });
  const answers: AnyMessage[] = [];
  await new Promise<void>((resolve) => {
    const dealer = new DealerLink(
      router.address,
      { kind: 'hello' },
      {
        message: (message) => {
          answers.push(message);
          if (answers.length === 101) {
            dealer.close();
            resolve();
          }
        },
        rejected: () => t.fail('rejected'),
      },
    );
    for (let i = 0; i < 100; i++) dealer.send({ kind: `m${i}` });
  });
  t.same(seen.slice(0, 3), ['hello', 'm0', 'm1']);
  t.same([...(answers[100]!.columns!['a'] as Int32Array)], [101]);
  t.type(await left, 'string');
  t.equal(router.numPeers, 0);
  router.close();
});
