// The table id -> bytes that decoding reads: what each token contributes to the text, with no
// tokenizer needed any more. Byte-level BPE maps its 256 stand-in characters back; SentencePiece
// has ▁ for a space and <0xXX> for a byte; an added token is its own text, always.
import { bad, type AddedToken, type Json } from './tokenizer-files.ts';

export interface TokenBytes {
  /** Ids are 0 .. vocabSize - 1. */
  readonly vocabSize: number;
  /** [vocabSize + 1] */
  readonly start: Uint32Array;
  readonly bytes: Uint8Array;
  /** [vocabSize] 1 = left out by skip_special_tokens. */
  readonly special: Uint8Array;
  /** SentencePiece: the first space of a text is not part of it. */
  readonly stripFirstSpace: boolean;
}

/** Bytes of one token; empty for an id outside the table (a model may have padded rows). */
export function bytesOf(table: TokenBytes, id: number): Uint8Array {
  return id >= 0 && id < table.vocabSize
    ? table.bytes.subarray(table.start[id], table.start[id + 1])
    : table.bytes.subarray(0, 0);
}

type ToBytes = (token: string) => Uint8Array;

/** `tokens` are the model's own by id, without added ones where the two differ. */
export function buildTokenBytes(
  tokens: readonly (string | undefined)[],
  addedTokens: readonly AddedToken[],
  decoder: unknown,
  path: string,
): TokenBytes {
  const { toBytes, stripFirstSpace } = chooseDecoder(decoder, path);
  let vocabSize = tokens.length;
  for (const { id } of addedTokens) vocabSize = Math.max(vocabSize, id + 1);
  // An id far beyond the vocabulary would make the table huge.
  if (vocabSize > 4 * 1024 * 1024) throw bad(path, `token id ${vocabSize - 1} is too large`);
  const added = new Map(addedTokens.map((token) => [token.id, token]));
  const special = new Uint8Array(vocabSize);
  const start = new Uint32Array(vocabSize + 1);
  const pieces: Uint8Array[] = [];
  let size = 0;
  for (let id = 0; id < vocabSize; id++) {
    const token = added.get(id);
    if (token?.special) special[id] = 1;
    const piece = token ? Buffer.from(token.content) : toBytes(tokens[id] ?? '');
    pieces.push(piece);
    start[id] = size;
    size += piece.length;
  }
  start[vocabSize] = size;
  const bytes = new Uint8Array(size);
  for (let id = 0; id < vocabSize; id++) bytes.set(pieces[id]!, start[id]);
  return { vocabSize, start, bytes, special, stripFirstSpace };
}

/** UTF-16 units of the longest token: text longer than n of these cannot be n tokens. */
export function longestToken({ vocabSize, start, bytes }: TokenBytes): number {
  let longest = 1;
  for (let id = 0; id < vocabSize; id++) {
    let units = 0;
    for (let i = start[id]!; i < start[id + 1]!; i++) {
      const byte = bytes[i]!;
      if (byte < 0x80 || byte >= 0xc0) units += byte >= 0xf0 ? 2 : 1;
    }
    longest = Math.max(longest, units);
  }
  return longest;
}

function chooseDecoder(
  decoder: unknown,
  path: string,
): { toBytes: ToBytes; stripFirstSpace: boolean } {
  const steps = flatten(decoder);
  const names = steps.map((step) => String(step['type']));
  if (names.length === 1 && names[0] === 'ByteLevel')
    return { toBytes: byteLevelBytes, stripFirstSpace: false };
  let space: string | null = null;
  let byteFallback = false;
  let stripFirstSpace = false;
  for (const step of steps) {
    const type = step['type'];
    if (type === 'Replace' && step['content'] === ' ') {
      const pattern = (step['pattern'] as Json | undefined)?.['String'];
      if (typeof pattern === 'string') space = pattern;
    } else if (type === 'Metaspace') {
      space = typeof step['replacement'] === 'string' ? step['replacement'] : '▁';
      stripFirstSpace = step['prepend_scheme'] !== 'never' && step['add_prefix_space'] !== false;
    } else if (type === 'ByteFallback') byteFallback = true;
    else if (type === 'Strip' && step['content'] === ' ' && step['start'] === 1 && !step['stop'])
      stripFirstSpace = true;
    else if (type !== 'Fuse') space = null;
    if (space === null) break;
  }
  if (space === null)
    throw bad(
      path,
      `decoder ${names.join(' + ') || 'null'} is not supported; supported are ByteLevel, ` +
        'Metaspace, and Replace + ByteFallback + Fuse [+ Strip]',
    );
  const mark = space;
  return {
    toBytes: (token) =>
      (byteFallback ? fallbackByte(token) : null) ?? Buffer.from(token.replaceAll(mark, ' ')),
    stripFirstSpace,
  };
}

function flatten(decoder: unknown): Json[] {
  if (typeof decoder !== 'object' || decoder === null) return [];
  const { type, decoders } = decoder as Json;
  return type === 'Sequence' && Array.isArray(decoders)
    ? decoders.flatMap(flatten)
    : [decoder as Json];
}

function fallbackByte(token: string): Uint8Array | null {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
  return match && Uint8Array.of(parseInt(match[1]!, 16));
}

/** The printable bytes stand for themselves, the other 68 for U+0100 and up, in order. */
const byteOfChar = new Map<string, number>();
for (let byte = 0, next = 0x100; byte < 256; byte++) {
  const printable =
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  byteOfChar.set(String.fromCodePoint(printable ? byte : next++), byte);
}

/** A token with a character that stands for no byte is plain text. */
function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of token) {
    const byte = byteOfChar.get(char);
    if (byte === undefined) return Buffer.from(token);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
