import t from 'tap';
import { GrowableColumn } from '../../../common/growable-column.ts';
import { Utf8Decoder } from '../../../common/text/utf8-decoder.ts';

/** Bytes that are boundaries in the UTF-8 table, so that ill-formed sequences of all kinds occur. */
const bytes = [
  0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed,
  0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff, 0xbb, 0xbd,
];

t.test('Utf8Decoder equals TextDecoder on every sequence of four boundary bytes', (t) => {
  const n = bytes.length;
  const reference = new TextDecoder('utf-8', { ignoreBOM: true });
  const out = new GrowableColumn(Uint8Array, 64);
  let failures = 0;
  for (let i = 0; i < n ** 4; i++) {
    const input = Uint8Array.of(
      bytes[i % n]!,
      bytes[Math.floor(i / n) % n]!,
      bytes[Math.floor(i / n ** 2) % n]!,
      bytes[Math.floor(i / n ** 3)]!,
    );
    const split = i % 5;
    out.clear();
    const decoder = new Utf8Decoder();
    decoder.write(input.subarray(0, split), out);
    decoder.write(input.subarray(split), out);
    decoder.flush(out);
    const found = Buffer.from(out.view()).toString();
    if (found !== reference.decode(input) && failures++ < 3)
      t.equal(found, reference.decode(input), `bytes ${Buffer.from(input).toString('hex')}`);
  }
  t.equal(failures, 0);
  t.end();
});

t.test('Utf8Decoder shows nothing of an unfinished character', (t) => {
  const decoder = new Utf8Decoder();
  const out = new GrowableColumn(Uint8Array);
  const lengths = [...Buffer.from('a😀€')].map((byte) => {
    decoder.write(Uint8Array.of(byte), out);
    return out.length;
  });
  t.same(lengths, [1, 1, 1, 1, 5, 5, 5, 8]);
  t.end();
});
