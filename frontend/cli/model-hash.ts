// Whether two hosts have the same model: a hash of what config.json says, and one of the weights'
// files by name, size and samples of their bytes. It reads little, so that a start does not wait for
// hundreds of gigabytes; a change of a few bytes between the samples is not seen.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { ModelConfig } from '../../common/config.ts';

const numSamples = 32;
const sampleBytes = 4096;

export interface ModelHash {
  readonly config: string;
  readonly weights: string;
}

/** `weightsSeed` is that of random weights; null where they are read from files. */
export function hashModel(model: ModelConfig, weightsSeed: number | null): ModelHash {
  const { path, ...config } = model;
  const hash = createHash('sha256');
  if (weightsSeed !== null) hash.update(`random ${weightsSeed}`);
  else for (const name of weightFiles(path)) addFile(hash, path, name);
  return {
    config: createHash('sha256').update(JSON.stringify(config)).digest('hex'),
    weights: hash.digest('hex'),
  };
}

const weightFiles = (folder: string) =>
  readdirSync(folder)
    .filter((name) => /\.safetensors(\.index\.json)?$/.test(name))
    .sort();

function addFile(hash: Hash, folder: string, name: string): void {
  const file = openSync(join(folder, name), 'r');
  try {
    const { size } = fstatSync(file);
    hash.update(`${name} ${size}\n`);
    const buffer = Buffer.alloc(sampleBytes);
    const last = Math.max(0, size - sampleBytes);
    for (let i = 0; i < numSamples; i++) {
      const at = Math.floor((last * i) / (numSamples - 1));
      hash.update(buffer.subarray(0, readSync(file, buffer, 0, sampleBytes, at)));
    }
  } finally {
    closeSync(file);
  }
}
