// Safetensors files that are whole, and every way in which one can lie: each an error that names
// file and tensor.
import t from 'tap';
import { StartError } from '../../common/errors.ts';
import { maxHeaderBytes, readSafetensorsHeader } from '../../worker/weights/safetensors.ts';
import { inMemory, safetensors } from './safetensors-file.ts';

const good = {
  a: { dtype: 'BF16', shape: [2, 3], data_offsets: [0, 12] },
  b: { dtype: 'F32', shape: [2], data_offsets: [12, 20] },
};

function read(header: unknown, dataBytes = 20): ReturnType<typeof readSafetensorsHeader> {
  return readSafetensorsHeader(inMemory('x/model.safetensors', safetensors(header, dataBytes)));
}

t.test('entries with absolute byte ranges', (t) => {
  const entries = read({ __metadata__: { format: 'pt' }, ...good });
  const base = entries.get('a')!.begin;
  t.strictSame([...entries.keys()], ['a', 'b']);
  t.strictSame(entries.get('a')!.shape, [2, 3]);
  t.equal(entries.get('b')!.begin, base + 12);
  t.equal(entries.get('b')!.end, base + 20);
  t.equal(read({ empty: { dtype: 'F32', shape: [0, 4], data_offsets: [0, 0] } }, 0).size, 1);
  t.equal(read({ scalar: { dtype: 'F32', shape: [], data_offsets: [0, 4] } }, 4).size, 1);
  t.end();
});

const a = good.a;
const cases: [string, unknown, number, RegExp][] = [
  ['truncated', good, 19, /tensor b ends at byte \d+, but the file has \d+: truncated/],
  ['longer than its tensors', good, 21, /1 bytes follow the last tensor/],
  [
    'a gap',
    { ...good, b: { ...good.b, data_offsets: [16, 24] } },
    24,
    /tensor b leaves a gap of 4/,
  ],
  ['an overlap', { ...good, b: { ...good.b, data_offsets: [8, 16] } }, 16, /tensor b overlaps/],
  [
    'a wrong size',
    { a: { ...a, shape: [2, 4] } },
    12,
    /tensor a: BF16 \[2,4\] is 16 bytes, not 12/,
  ],
  ['a wrong dtype', { a: { ...a, dtype: 'F32' } }, 12, /tensor a: F32 \[2,3\] is 24 bytes/],
  ['an unknown dtype', { a: { ...a, dtype: 'Q4' } }, 12, /tensor a: unknown dtype Q4/],
  ['a dtype of the prototype', { a: { ...a, dtype: 'toString' } }, 12, /unknown dtype toString/],
  ['a negative size', { a: { ...a, shape: [-2, -3] } }, 12, /tensor a: shape/],
  ['a fractional size', { a: { ...a, shape: [1.5, 4] } }, 12, /tensor a: shape/],
  ['a shape that is no list', { a: { ...a, shape: 6 } }, 12, /tensor a: shape/],
  ['a size beyond 2^53', { a: { ...a, shape: [2 ** 53 + 2, 1] } }, 12, /tensor a: shape/],
  [
    'a product that wraps in 64 bits',
    { a: { ...a, shape: [2 ** 32, 2 ** 32, 2 ** 32] } },
    12,
    /is 158456325028528675187087900672 bytes/,
  ],
  ['offsets backwards', { a: { ...a, data_offsets: [12, 0] } }, 12, /run backwards/],
  ['negative offsets', { a: { ...a, data_offsets: [-12, 0] } }, 12, /data_offsets are not/],
  ['one offset', { a: { ...a, data_offsets: [12] } }, 12, /data_offsets are not/],
  ['an entry that is no object', { a: [1] }, 12, /tensor a: entry is not an object/],
  ['a header that is no object', [1], 0, /header is not a JSON object/],
];

for (const [name, header, dataBytes, message] of cases)
  t.test(name, (t) => {
    const error = t.throws(() => read(header, dataBytes), message) as unknown;
    t.type(error, StartError);
    t.match(error, { exitCode: 65, message: /^x\/model\.safetensors: / });
    t.end();
  });

t.test('headers that cannot be read', (t) => {
  const file = (bytes: Uint8Array) => () => readSafetensorsHeader(inMemory('f', bytes));
  t.throws(file(new Uint8Array(0)), /0 bytes are no safetensors file/);
  t.throws(file(new Uint8Array(7)), /7 bytes/);
  const bytes = safetensors(good, 20);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(bytes.length), true);
  t.throws(file(bytes), /ends after the file's/);
  view.setBigUint64(0, BigInt(maxHeaderBytes) + 1n, true);
  t.throws(file(bytes), /too long/);
  view.setBigUint64(0, 2n ** 63n, true);
  t.throws(file(bytes), /header of 9223372036854775808 bytes is too long/);
  view.setBigUint64(0, 5n, true);
  t.throws(file(bytes), /header: it is not JSON/);
  t.end();
});

t.test('a header that would take memory out of proportion is not parsed', (t) => {
  const file = (json: string) => () => {
    const bytes = Buffer.concat([Buffer.alloc(8), Buffer.from(json)]);
    bytes.writeBigUInt64LE(BigInt(json.length));
    return readSafetensorsHeader(inMemory('f', bytes));
  };
  t.throws(file('{"a":' + '['.repeat(1e6)), /f: header: it is nested deeper than 64 levels/);
  const many = 5 * 2 ** 20;
  t.throws(file('{"a":[' + '[],'.repeat(many)), /f: header: it has more than 4194304 arrays/);
  t.throws(file('{"a":"' + '['.repeat(100) + '\\"' + '{'.repeat(100)), /header: it is not JSON/);
  t.end();
});

t.test('what a header calls its tensors cannot break or flood the line that names them', (t) => {
  const entry = { dtype: 'F32', shape: [1], data_offsets: [4, 8] };
  const name = 'a\n\u001b[31mb';
  t.throws(() => read({ [name]: entry }, 8), /tensor "a\\n\\u001b\[31mb" leaves a gap of 4 bytes$/);
  const long = 'x'.repeat(1e5);
  for (const header of [{ [long]: entry }, { a: { ...entry, dtype: long } }]) {
    const error = t.throws(() => read(header, 8)) as unknown as Error;
    t.ok(error.message.length < 300, error.message.slice(0, 300));
  }
  t.end();
});

t.test('random damage never passes unseen as a read out of bounds', (t) => {
  let state = 99;
  const random = (n: number) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % n;
  const original = safetensors(good, 20);
  const escaped: string[] = [];
  for (let round = 0; round < 3000; round++) {
    const bytes = original.slice(0, random(4) === 0 ? random(original.length) : original.length);
    for (let k = random(4); k >= 0 && bytes.length > 0; k--)
      bytes[random(bytes.length)] = random(256);
    try {
      for (const { name, begin, end } of readSafetensorsHeader(inMemory('f', bytes)).values())
        if (!(begin >= 8 && begin <= end && end <= bytes.length)) escaped.push(`${round} ${name}`);
    } catch (error) {
      if (!(error instanceof StartError)) escaped.push(`${round} ${String(error)}`);
    }
  }
  t.strictSame(escaped, []);
  t.end();
});
