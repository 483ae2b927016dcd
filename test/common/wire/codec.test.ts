import t from 'tap';
import { WireError } from '../../../common/errors.ts';
import { decodeMessage, encodeMessage } from '../../../common/wire/codec.ts';
import { checkColumns } from '../../../common/wire/columns.ts';
import { decodeHeader, encodeHeader } from '../../../common/wire/msgpack.ts';

t.test('message round trip keeps fields and columns', (t) => {
  const frames = encodeMessage({
    kind: 'x',
    n: 7,
    big: 2 ** 40,
    seed: 0xfedcba9876543210n,
    gone: undefined,
    none: null,
    list: [1, 'zwei', 0.5, -3],
    columns: {
      a: Int32Array.of(1, -2, 3),
      b: Uint8Array.of(255),
      c: BigUint64Array.of(2n ** 63n),
      d: new Float32Array(0),
    },
  } as never);
  t.equal(frames.length, 2);
  const message = decodeMessage(frames);
  t.equal(message['n'], 7);
  t.equal(message['big'], 2 ** 40);
  t.equal(message['seed'], 0xfedcba9876543210n);
  t.notOk('gone' in message);
  t.equal(message['none'], null);
  t.same(message['list'], [1, 'zwei', 0.5, -3]);
  const columns = checkColumns(message.columns!, { a: 'i32', b: 'u8', c: 'u64', d: 'f32' });
  t.same([...columns.a], [1, -2, 3]);
  t.same([...columns.c], [2n ** 63n]);
  t.end();
});

t.test('integers keep their value, strings become well formed, holes become nil', (t) => {
  const values = [-0x80000000, -0x80000001, 0xffffffff, 0x100000000, -(2 ** 53 - 1), 2 ** 53 - 1];
  const header = decodeHeader(encodeHeader({ values, text: 'a\ud800b', holes: [undefined, 1] }));
  t.same(header['values'], values);
  t.equal(header['text'], 'a\ufffdb');
  t.same(header['holes'], [null, 1]);
  t.throws(() => encodeHeader({ seed: 2n ** 64n }), 'no integer is cut short');
  t.end();
});

t.test('an unaligned body frame is read all the same', (t) => {
  const [header, body] = encodeMessage({ kind: 'x', columns: { a: Float64Array.of(1.5) } });
  const shifted = new Uint8Array(body!.length + 1).subarray(1);
  shifted.set(body!);
  t.same([...(decodeMessage([header!, shifted]).columns!['a'] as Float64Array)], [1.5]);
  t.end();
});

t.test('hostile frames throw WireError and nothing else', (t) => {
  const table = (entry: unknown) => [
    encodeHeader({ kind: 'x', columns: [entry] }),
    new Uint8Array(16),
  ];
  const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
  t.throws(() => encodeHeader({ kind: 'x', deep: nested(9) }), WireError);
  t.ok(decodeMessage([encodeHeader({ kind: 'x', deep: nested(7) })]));
  const cases: Record<string, Uint8Array[]> = {
    'no frame': [],
    'three frames': [encodeHeader({ kind: 'x' }), new Uint8Array(0), new Uint8Array(0)],
    empty: [new Uint8Array(0)],
    'not a map': [Uint8Array.of(0x01)],
    'no kind': [encodeHeader({ a: 1 })],
    'trailing bytes': [Uint8Array.of(...encodeHeader({ kind: 'x' }), 0)],
    ext: [Uint8Array.of(0x81, 0xa1, 0x61, 0xd4, 0x00, 0x00)],
    'ext 8': [Uint8Array.of(0x81, 0xa1, 0x61, 0xc7, 0x01, 0x00, 0x00)],
    'huge array': [Uint8Array.of(0x81, 0xa1, 0x61, 0xdd, 0xff, 0xff, 0xff, 0xff)],
    'huge map': [Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff)],
    'huge string': [Uint8Array.of(0x81, 0xa1, 0x61, 0xdb, 0xff, 0xff, 0xff, 0xff)],
    'integer key': [Uint8Array.of(0x81, 0x01, 0x01)],
    deep: [Uint8Array.of(0x81, 0xa1, 0x61, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x01)],
    truncated: [encodeHeader({ kind: 'x', a: 'hello' }).subarray(0, 9)],
    'offset past the body': table(['a', 'i32', 16, 1]),
    'count past the body': table(['a', 'i32', 0, 5]),
    'count overflows': table(['a', 'i32', 0, Number.MAX_SAFE_INTEGER]),
    'negative offset': table(['a', 'i32', -8, 1]),
    'unaligned offset': table(['a', 'u8', 1, 1]),
    'unknown type': table(['a', 'i31', 0, 1]),
    'inherited type': table(['a', 'constructor', 0, 1]),
    'short entry': table(['a', 'i32', 0]),
    'long entry': table(['a', 'i32', 0, 1, 1]),
    'name that is no string': table([1, 'i32', 0, 1]),
    'columns without body': [encodeHeader({ kind: 'x', columns: [] })],
    'body without columns': [encodeHeader({ kind: 'x' }), new Uint8Array(8)],
  };
  for (const [name, frames] of Object.entries(cases))
    t.throws(() => decodeMessage(frames), { name: 'WireError' }, name);
  const two = encodeMessage({ kind: 'x', columns: { a: Int32Array.of(1) } });
  t.throws(() => checkColumns(decodeMessage(two).columns!, { a: 'f32' }), WireError);
  t.throws(() => checkColumns(decodeMessage(two).columns!, { b: 'i32' }), WireError);
  t.throws(() => checkColumns(decodeMessage(two).columns!, {}), WireError);
  t.end();
});

t.test('random bytes never throw anything but WireError', (t) => {
  let seed = 1;
  const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  for (let i = 0; i < 20000; i++) {
    const bytes = Uint8Array.from({ length: Math.floor(random() * 24) }, () => random() * 256);
    try {
      decodeMessage([bytes]);
    } catch (error) {
      if (!(error instanceof WireError)) t.fail(String(error), { bytes: [...bytes] });
    }
  }
  t.pass('20000 frames');
  t.end();
});
