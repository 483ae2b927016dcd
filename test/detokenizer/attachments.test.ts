import t from 'tap';
import type { Attach } from '../../common/wire/messages.ts';
import { Attachments } from '../../detokenizer/attachments.ts';

const attach = (frontendId: number, attachKey = 'key'): Attach => ({
  ...{ kind: 'attach', frontendId, attachKey, creditBytes: 1 },
});
const peersOf = (taken: [string, Attach][]) => taken.map(([peer]) => peer);

t.test('a frontend attaches with its key, and with no other of any length', (t) => {
  const attachments = new Attachments();
  const judge = (key: string) => attachments.judge('peer', attach(1, key), 'key', 0);
  t.equal(judge('key'), 'attached');
  for (const key of ['', 'ke', 'kex', 'keys', 'kéy']) t.equal(judge(key), 'refused', key);
  t.same(attachments.take(1), [], 'nobody waits');
  t.end();
});

t.test('who is early waits for its own frontend, for 30 s', (t) => {
  const attachments = new Attachments();
  t.equal(attachments.judge('a', attach(1), null, 0), 'waiting');
  attachments.judge('b', attach(2), null, 1000);
  attachments.judge('c', attach(1), null, 2000);
  attachments.judge('d', attach(1), null, 2000);
  attachments.peerGone('d');
  t.same(peersOf(attachments.take(1)), ['a', 'c']);
  t.same(attachments.take(1), [], 'once');
  t.same(attachments.takeExpired(30_999), []);
  t.same(peersOf(attachments.takeExpired(31_000)), ['b']);
  t.same(attachments.takeExpired(31_000), []);
  t.end();
});

t.test('no more than 1024 wait, and one that asks again is one', (t) => {
  const attachments = new Attachments();
  const judge = (peer: number) => attachments.judge(`peer ${peer}`, attach(peer), null, 0);
  const verdicts = Array.from({ length: 1024 }, (_, peer) => judge(peer));
  t.same([...new Set(verdicts)], ['waiting']);
  t.equal(judge(1024), 'refused');
  t.equal(judge(5), 'waiting');
  attachments.peerGone('peer 5');
  t.equal(judge(1024), 'waiting');
  t.equal(attachments.judge('peer 7', attach(7), 'key', 0), 'attached');
  t.same(attachments.take(7), [], 'it waits no longer');
  t.end();
});
