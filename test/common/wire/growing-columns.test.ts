import t from 'tap';
import { clearColumns, makeGrowing, viewColumns } from '../../../common/wire/growing-columns.ts';

const spec = { a: 'i32', b: 'u64', c: 'f32' } as const;

t.test('growing columns keep what they hold as they grow, and their room when cleared', (t) => {
  const columns = makeGrowing(spec);
  for (let i = 0; i < 1000; i++) columns.a.push(i);
  columns.c.append(Array.from({ length: 300 }, (_, i) => i / 2));
  for (let i = 0n; i < 200n; i++) columns.b.push(2n ** 64n - 1n - i);
  const { a, b, c } = viewColumns(columns);
  t.same([a.length, b.length, c.length], [1000, 200, 300]);
  t.ok(a.every((value, i) => value === i));
  t.ok(c.every((value, i) => value === i / 2));
  t.ok(b.every((value, i) => value === 2n ** 64n - 1n - BigInt(i)));
  clearColumns(columns);
  columns.a.push(5);
  const again = viewColumns(columns);
  t.same([...again.a], [5]);
  t.equal(again.b.length, 0);
  t.equal(again.a.buffer, a.buffer, 'the same memory');
  t.end();
});
