import t from 'tap';
import { exactInteger } from '../../../frontend/http/exact-integer.ts';

const cases: readonly [string, bigint | null][] = [
  ['{"seed":9007199254740993}', 9007199254740993n],
  ['{ "seed" :\n -9223372036854775808 }', -(2n ** 63n)],
  ['{"a":{"seed":1},"b":["seed",{"seed":2}],"seed":3}', 3n],
  ['{"seed":1,"\\u0073eed":4}', 4n],
  ['{"seed":5,"seed":"6"}', null],
  ['{"seed":1e18}', null],
  ['{"seed":12.0}', null],
  ['{"x":"\\"seed\\":7,","y":"\\\\","seed":8}', 8n],
  ['{"x":"seed:7"}', null],
  ['{"x":{"seed":1}}', null],
  ['{"seed":{"x":4}}', null],
  ['{"seed":3,"n":4}', 3n],
  [`{"x":"${'\\\\"'.repeat(3).replaceAll('"', '\\"')}","seed":9}`, 9n],
];

t.test('exactInteger reads the field as it is written', (t) => {
  for (const [json, expected] of cases) {
    JSON.parse(json);
    t.equal(exactInteger(json, 'seed'), expected, json);
  }
  const long = JSON.stringify({ text: 'a"\\'.repeat(2 ** 20), seed: 0 });
  t.equal(exactInteger(long.replace(/0\}$/, '9007199254740993}'), 'seed'), 9007199254740993n);
  t.end();
});
