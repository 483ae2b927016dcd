// Columns of logprobs, seen token by token, and lists that were cut apart joined again.
import t from 'tap';
import { LogprobList, type TokenLogprobs } from '../../../frontend/logprob-list.ts';
import { listOf } from '../http/fakes.ts';

const token = (...texts: readonly string[]): TokenLogprobs => ({
  ids: Int32Array.from(texts, (text) => text.length),
  logprobs: Float32Array.from(texts, (_, i) => -i),
  ranks: Int32Array.from(texts, (_, i) => i + 1),
  bytes: texts.map((text) => Buffer.from(text)),
});

const tokens = [token('a', 'é', ''), token('bc'), token(), token('🙂', 'd')];

const seen = (list: LogprobList) =>
  [...list].map(({ ids, logprobs, ranks, bytes }) => ({
    ids: [...ids],
    logprobs: [...logprobs],
    ranks: [...ranks],
    texts: bytes.map((text) => Buffer.from(text).toString()),
  }));

t.test('a token has its own entries', (t) => {
  const list = listOf(tokens, 3);
  t.equal(list.length, 4);
  t.equal(list.position, 3);
  t.same(
    seen(list).map(({ texts }) => texts),
    [['a', 'é', ''], ['bc'], [], ['🙂', 'd']],
  );
  t.equal(list.textOf(list.firstEntry(3)), '🙂');
  t.same([...list.bytesOf(list.firstEntry(0) + 1)], [0xc3, 0xa9]);
  t.equal(list.at(4), undefined);
  t.equal(list.at(-1), undefined);
  t.end();
});

t.test('concat', (t) => {
  const whole = seen(listOf(tokens));
  for (let cut = 0; cut <= tokens.length; cut++)
    for (let next = cut; next <= tokens.length; next++) {
      const parts = [tokens.slice(0, cut), tokens.slice(cut, next), tokens.slice(next)];
      const joined = LogprobList.concat(parts.map((part, i) => listOf(part, 5 + i)))!;
      t.strictSame(seen(joined), whole, `cut at ${cut} and ${next}`);
      t.equal(joined.position, 5);
    }
  const one = listOf(tokens);
  t.equal(LogprobList.concat([one]), one);
  t.equal(LogprobList.concat([]), null);
  t.end();
});
