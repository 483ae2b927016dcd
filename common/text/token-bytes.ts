// The table id -> bytes that decoding reads: what each token contributes to the text, with no
// tokenizer needed any more. Byte-level BPE maps its 256 stand-in characters back; SentencePiece
// has ▁ for a space and <0xXX> for a byte; an added token is its own text, always.
import { GrowableColumn } from '../growable-column.ts';
import type { Json } from '../json-object.ts';
import { bad, type AddedToken } from './tokenizer-files.ts';
import type { ByteSink } from './utf8-decoder.ts';

const maxTokenId = 4 * 1024 * 1024;

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

/** Appends what a token contributes to the text. */
type WriteToken = (token: string, out: ByteSink) => void;

/** Throws StartError that names `path`, the tokenizer.json. */
export function buildTokenBytes(
  tokenizer: Json,
  addedTokens: readonly AddedToken[],
  path: string,
): TokenBytes {
  const { write, stripFirstSpace } = chooseDecoder(tokenizer['decoder'], path);
  const tokens = modelTokens(tokenizer['model'] as Json, path);
  for (const { id, content } of addedTokens) {
    checkId(id, path);
    tokens[id] = content;
  }
  const vocabSize = tokens.length;
  const special = new Uint8Array(vocabSize);
  const isAdded = new Uint8Array(vocabSize);
  for (const token of addedTokens) {
    isAdded[token.id] = 1;
    if (token.special) special[token.id] = 1;
  }
  const start = new Uint32Array(vocabSize + 1);
  const bytes = new GrowableColumn(Uint8Array, vocabSize * 8);
  for (let id = 0; id < vocabSize; id++) {
    if (isAdded[id] === 1) writeText(tokens[id]!, bytes);
    else write(tokens[id] ?? '', bytes);
    start[id + 1] = bytes.length;
  }
  return { vocabSize, start, bytes: bytes.view().slice(), special, stripFirstSpace };
}

/** The model's own tokens by id: BPE has a map, Unigram a list of [token, score]. */
function modelTokens({ vocab }: Json, path: string): (string | undefined)[] {
  if (typeof vocab !== 'object' || vocab === null) throw bad(path, 'its model has no vocab');
  const tokens: (string | undefined)[] = [];
  if (Array.isArray(vocab))
    for (const entry of vocab as readonly unknown[]) {
      const token: unknown = Array.isArray(entry) ? entry[0] : null;
      if (typeof token !== 'string') throw bad(path, 'its vocab has an entry without a token');
      tokens.push(token);
    }
  else
    for (const [token, id] of Object.entries(vocab)) {
      checkId(id, path);
      tokens[id as number] = token;
    }
  return tokens;
}

/** An id far beyond the vocabulary would make the table huge. */
function checkId(id: unknown, path: string): void {
  if (!(Number.isInteger(id) && (id as number) >= 0 && (id as number) <= maxTokenId))
    throw bad(path, `token id ${String(id)} is not between 0 and ${maxTokenId}`);
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
): { write: WriteToken; stripFirstSpace: boolean } {
  const steps = flatten(decoder);
  const names = steps.map((step) => String(step['type']));
  if (names.length === 1 && names[0] === 'ByteLevel')
    return { write: writeByteLevel, stripFirstSpace: false };
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
    write: (token, out) => {
      const byte = byteFallback ? fallbackByte(token) : -1;
      if (byte >= 0) out.push(byte);
      else writeText(token.replaceAll(mark, ' '), out);
    },
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

/** Value of <0xXX>, -1 for other tokens. */
function fallbackByte(token: string): number {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
  return match ? parseInt(match[1]!, 16) : -1;
}

function writeText(text: string, out: ByteSink): void {
  const bytes = Buffer.from(text, 'utf8');
  out.append(bytes, 0, bytes.length);
}

/** Byte by character code: printable bytes stand for themselves, the other 68 for U+0100 and up. */
const byteOfCode = new Int16Array(0x200).fill(-1);
for (let byte = 0, next = 0x100; byte < 256; byte++) {
  const printable =
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  byteOfCode[printable ? byte : next++] = byte;
}

/** A token with a character that stands for no byte is plain text. */
function writeByteLevel(token: string, out: ByteSink): void {
  const before = out.length;
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfCode[token.charCodeAt(i)] ?? -1;
    if (byte < 0) {
      out.truncate(before);
      writeText(token, out);
      return;
    }
    out.push(byte);
  }
}
