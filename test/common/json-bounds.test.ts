import t from 'tap';
import { boundsFault } from '../../common/json-bounds.ts';

const fault = (text: string, depth = 3, containers = 100) =>
  boundsFault(Buffer.from(text), { depth, containers });

t.test('JSON is bounded by its depth and by its arrays and objects', (t) => {
  t.equal(fault('[{"a":[1]}]'), null);
  t.equal(fault('[{"a":[[]]}]'), 'is nested deeper than 3 levels');
  t.equal(fault(`[${'[[]],{"a":{}},'.repeat(20)}0]`), null, 'what is closed nests nothing');
  t.equal(fault('[[],{}]', 3, 3), null);
  t.equal(fault('[[],{},[]]', 3, 3), 'has more than 3 arrays and objects');
  t.end();
});

t.test('brackets in strings are text', (t) => {
  t.equal(fault('["[[[[{{{{"]'), null);
  t.equal(fault('["\\"[[[[", "\\\\", []]'), null);
  t.equal(fault('["\\\\", [[[]]]]'), 'is nested deeper than 3 levels');
  t.equal(fault('["]]]]", [[[]]]]'), 'is nested deeper than 3 levels');
  t.end();
});
