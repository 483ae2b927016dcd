import t from 'tap';
import { buildTokenBytes, bytesOf, longestToken } from '../../../common/text/token-bytes.ts';

const strip = { type: 'Strip', content: ' ', start: 1, stop: 0 };
const replace = { type: 'Replace', pattern: { String: '▁' }, content: ' ' };

/** A SentencePiece vocabulary, its decoder with these steps at the end. */
function table(tokens: readonly string[], ...steps: object[]) {
  const decoders = [replace, { type: 'ByteFallback' }, { type: 'Fuse' }, ...steps];
  const vocab = tokens.map((token) => [token, 0]);
  return buildTokenBytes(
    { decoder: { type: 'Sequence', decoders }, model: { vocab } },
    [],
    'small',
  );
}

t.test('every byte has its token, and what only looks like one is text', (t) => {
  const hex = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const bytes = table([...hex, '<0x100>', '▁a▁']);
  for (let byte = 0; byte < 256; byte++) t.same([...bytesOf(bytes, byte)], [byte]);
  t.equal(Buffer.from(bytesOf(bytes, 256)).toString(), '<0x100>');
  t.equal(Buffer.from(bytesOf(bytes, 257)).toString(), ' a ');
  for (const id of [-1, 258]) t.equal(bytesOf(bytes, id).length, 0);
  t.end();
});

t.test('the first space of a text is dropped where the decoder says so, and only there', (t) => {
  t.equal(table(['▁a'], strip).stripFirstSpace, true);
  t.equal(table(['▁a']).stripFirstSpace, false);
  for (const change of [{ start: 0 }, { stop: 1 }, { content: 'x' }])
    t.throws(() => table(['▁a'], { ...strip, ...change }), /is not supported/);
  t.end();
});

t.test('longestToken counts UTF-16 units', (t) => {
  for (const [token, units] of [
    ['abc', 3],
    ['éé', 2],
    ['日本語', 3],
    ['😀', 2],
    ['a😀\u{10FFFF}', 5],
  ] as const) {
    t.equal(token.length, units);
    t.equal(longestToken(table(['x', token])), units, token);
  }
  t.end();
});

t.test('a byte-level token has a character for each of its bytes', (t) => {
  const characters: [string, number][] = [
    ...([
      ['Ā', 0x00],
      ['Ċ', 0x0a],
      ['Ġ', 0x20],
      ['!', 0x21],
      ['~', 0x7e],
    ] as const),
    ...([
      ['ġ', 0x7f],
      ['ł', 0xa0],
      ['¡', 0xa1],
      ['¬', 0xac],
      ['Ń', 0xad],
    ] as const),
    ...([
      ['®', 0xae],
      ['ÿ', 0xff],
    ] as const),
  ].map(([character, byte]) => [character, byte]);
  const vocab = Object.fromEntries(characters.map(([character], id) => [character, id]));
  const all = characters.map(([character]) => character).join('');
  const tokenizer = { decoder: { type: 'ByteLevel' }, model: { vocab: { ...vocab, [all]: 20 } } };
  const added = { id: 21, content: 'Ġ', special: true };
  const bytes = buildTokenBytes(tokenizer, [added], 'small');
  t.same(
    characters.map((_, id) => [...bytesOf(bytes, id)]),
    characters.map(([, byte]) => [byte]),
  );
  t.same(
    [...bytesOf(bytes, 20)],
    characters.map(([, byte]) => byte),
  );
  t.equal(Buffer.from(bytesOf(bytes, 21)).toString(), 'Ġ', 'what is added is text');
  t.same([...bytes.special], [...Array<number>(21).fill(0), 1]);
  for (const id of [-1, 0.5, 2 ** 31])
    t.throws(() => buildTokenBytes(tokenizer, [{ ...added, id }], 'small'), /token id/);
  t.end();
});
