import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { BlockHasher, hashWords } from '../../engine/block-hash.ts';

interface Vector {
  readonly seed: string;
  readonly blockSize: number;
  readonly tokenIds: readonly number[];
  readonly extraKeys: readonly string[] | null;
  readonly hashes: readonly string[];
}

function hashAll(hasher: BlockHasher, { tokenIds, blockSize, extraKeys }: Omit<Vector, 'hashes'>) {
  const numBlocks = tokenIds.length / blockSize;
  const hashes = new Int32Array(numBlocks * hashWords);
  for (let index = 0; index < numBlocks; index++) {
    const ids = Int32Array.from(tokenIds);
    hasher.hashBlock(hashes, index, ids, index * blockSize, index === 0 ? extraKeys : null);
  }
  const bytes = Buffer.from(hashes.buffer);
  return Array.from({ length: numBlocks }, (_, i) => bytes.toString('hex', i * 32, i * 32 + 32));
}

// Each was made with Python: sha256(cbor2.dumps((parent, tokenIds, extraKeys), canonical=True)),
// the first parent being sha256(cbor2.dumps(seed)).
t.test('BlockHasher has the bytes of sha256_cbor', (t) => {
  const path = join(packageRoot, 'test/fixtures/engine/block-hashes.json');
  for (const vector of JSON.parse(readFileSync(path, 'utf8')) as Vector[])
    t.same(hashAll(new BlockHasher(vector.blockSize, vector.seed), vector), vector.hashes);
  t.end();
});

t.test('BlockHasher without a seed has a root of its own', (t) => {
  const vector = { seed: '', blockSize: 2, tokenIds: [1, 2, 3, 4], extraKeys: null };
  const a = hashAll(new BlockHasher(2, null), vector);
  t.notSame(a, hashAll(new BlockHasher(2, null), vector));
  t.end();
});
