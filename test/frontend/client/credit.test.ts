import t from 'tap';
import type { Credit } from '../../../common/wire/messages.ts';
import { CreditBook, openAccount } from '../../../frontend/engine-client-credit.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

t.test('what was read is granted again, in few messages', async (t) => {
  const sent: Credit[] = [];
  const book = new CreditBook(1000, (message) => sent.push(message));
  const account = openAccount(7, 100);
  account.unread += 30;
  book.read(account, 20);
  await turn();
  t.equal(sent.length, 0, 'less than a quarter is free');
  book.read(account, 10);
  await turn();
  t.equal(sent[0]!.bytes, 30);
  t.same([...sent[0]!.columns.requestId], [7]);
  t.same([...sent[0]!.columns.bytes], [30]);
  book.read(account, 1000);
  await turn();
  t.equal(sent.length, 1, 'more than was received is never granted');
});

t.test('an ended choice gives back in all, not to its account', async (t) => {
  const sent: Credit[] = [];
  const book = new CreditBook(100, (message) => sent.push(message));
  const account = openAccount(7, 1000);
  account.unread += 60;
  book.read(account, 20);
  book.close(account);
  await turn();
  t.equal(sent[0]!.bytes, 60);
  t.equal(sent[0]!.columns.requestId.length, 0);
});

t.test('neither account runs dry while the reader reads everything', async (t) => {
  let seed = 7;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  const inAll = { left: 500, limit: 500 };
  const accounts = Array.from({ length: 5 }, (_, i) => openAccount(i, 200));
  const left = accounts.map(() => 200);
  const book = new CreditBook(inAll.limit, ({ bytes, columns }) => {
    inAll.left = Math.min(inAll.limit, inAll.left + bytes);
    columns.requestId.forEach((id, i) => (left[id] = Math.min(200, left[id]! + columns.bytes[i]!)));
  });
  const unread = accounts.map(() => 0);
  for (let i = 0; i < 5000; i++) {
    const id = random(5);
    if (left[id]! > 0 && inAll.left > 0) {
      const text = random(60);
      accounts[id]!.unread += text;
      left[id]! -= text;
      inAll.left -= text;
      unread[id]! += text;
    }
    const reader = random(5);
    const some = random(unread[reader]! + 1);
    book.read(accounts[reader]!, some);
    unread[reader]! -= some;
    if (i % 3 === 0) await turn();
  }
  accounts.forEach((account, id) => book.read(account, unread[id]!));
  await turn();
  t.ok(left.every((bytes) => bytes > 0));
  t.ok(inAll.left > 0);
});
