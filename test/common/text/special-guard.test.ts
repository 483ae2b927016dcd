import t from 'tap';
import { SpecialGuard } from '../../../common/text/special-guard.ts';

t.test('SpecialGuard leaves no special token whole, also where they overlap', (t) => {
  const guard = new SpecialGuard(['aa', '<s>', '<s>x', '.*']);
  t.equal(guard.count('<s>x aaa .* <s>'), 4);
  t.equal(guard.count('xs .x'), 0, 'a special token is no pattern');
  const text = 'aaaa<s>xa.*';
  const breaker = guard.chooseBreaker([text]);
  const broken = guard.breakUp(text, breaker);
  t.equal(guard.count(broken), 0);
  t.equal(broken.replaceAll(breaker, ''), text);
  t.end();
});

t.test('a special token of one character cannot be broken up', (t) => {
  const guard = new SpecialGuard(['§']);
  t.throws(() => guard.breakUp('a§', '\ue000'), { code: 'bad_request' });
  t.equal(guard.breakUp('a', '\ue000'), 'a');
  t.end();
});

t.test('the breaker is in no text and in no special token', (t) => {
  const guard = new SpecialGuard(['<\ue000>']);
  t.equal(guard.chooseBreaker(['a', '\ue001']), '\ue002');
  const all = Array.from({ length: 0xf8ff - 0xe000 }, (_, i) =>
    String.fromCharCode(0xe000 + i),
  ).join('');
  t.equal(guard.chooseBreaker([all]), '\uf8ff');
  t.throws(() => guard.chooseBreaker([all, '\uf8ff']), { code: 'bad_request' });
  t.end();
});
