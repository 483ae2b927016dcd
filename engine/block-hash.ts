// Content hashes of full blocks, chained: H(cbor([parentHash, tokenIds, extraKeys])) with SHA-256
// and canonical CBOR, byte for byte what vLLM computes under --prefix-caching-hash-algo
// sha256_cbor. A hash is 32 bytes, kept as 8 words of a column. Knows nothing of blocks' ids.
import { hash as digestOf, randomBytes } from 'node:crypto';

export const hashWords = 8;
const hashBytes = 32;

/** CBOR major types. */
const cborBytes = 0x40;
const cborText = 0x60;
const cborArray = 0x80;
const cborNull = 0xf6;

/** What besides its tokens tells a block apart: [cacheSalt] in a prompt's first block. */
export type ExtraKeys = readonly string[];

export class BlockHasher {
  readonly blockSize: number;
  /** Parent of a first block. */
  private readonly root: Buffer;
  private readonly scratch: Buffer;

  /** `seed` fixes the root, as PYTHONHASHSEED does in vLLM; null draws a random one. */
  constructor(blockSize: number, seed: string | null) {
    this.blockSize = blockSize;
    this.root = seed === null ? randomBytes(hashBytes) : sha256(textItem(seed));
    // Array of 3, parent, array header, ids of at most 5 bytes, null; extra keys are written apart.
    this.scratch = Buffer.alloc(1 + 2 + hashBytes + 5 + 5 * blockSize + 1);
  }

  /**
   * Hash of the block that holds tokenIds[start .. start + blockSize), into block `index` of
   * `hashes`; block index - 1 of `hashes` is its parent.
   */
  hashBlock(
    hashes: Int32Array,
    index: number,
    tokenIds: Int32Array,
    start: number,
    extraKeys: ExtraKeys | null,
  ): void {
    const out = Buffer.from(hashes.buffer, hashes.byteOffset, hashes.byteLength);
    const { scratch } = this;
    scratch[0] = cborArray | 3;
    let at = writeHead(scratch, 1, cborBytes, hashBytes);
    if (index === 0) this.root.copy(scratch, at);
    else out.copy(scratch, at, (index - 1) * hashBytes, index * hashBytes);
    at = writeHead(scratch, at + hashBytes, cborArray, this.blockSize);
    for (let i = start; i < start + this.blockSize; i++)
      at = writeHead(scratch, at, 0, tokenIds[i]!);
    scratch[at] = cborNull;
    let item = scratch.subarray(0, at + 1);
    if (extraKeys !== null)
      item = Buffer.concat([
        scratch.subarray(0, at),
        headItem(cborArray, extraKeys.length),
        ...extraKeys.map(textItem),
      ]);
    // As text first: three times cheaper than a Buffer a hash.
    out.write(digestOf('sha256', item, 'binary'), index * hashBytes, 'latin1');
  }
}

/** Canonical CBOR head of an item: its major type and count or value, in the fewest bytes. */
function writeHead(out: Buffer, at: number, majorType: number, value: number): number {
  if (value < 24) return out.writeUInt8(majorType | value, at);
  if (value < 0x100) return out.writeUInt8(value, out.writeUInt8(majorType | 24, at));
  if (value < 0x10000) return out.writeUInt16BE(value, out.writeUInt8(majorType | 25, at));
  return out.writeUInt32BE(value, out.writeUInt8(majorType | 26, at));
}

function headItem(majorType: number, value: number): Buffer {
  const head = Buffer.alloc(5);
  return head.subarray(0, writeHead(head, 0, majorType, value));
}

function textItem(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  return Buffer.concat([headItem(cborText, bytes.length), bytes]);
}

function sha256(data: Buffer): Buffer {
  return Buffer.from(digestOf('sha256', data, 'binary'), 'latin1');
}
