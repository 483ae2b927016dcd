// A file's bytes: mapped read-only through the native addon where it is built, so that the page
// cache is the only copy, else read. Nobody writes to them.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { badModel } from '../../common/json-fields.ts';
import { loadAddon } from '../../kernels/addon.ts';

export interface TensorFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly isMapped: boolean;
}

export function openTensorFile(path: string): TensorFile {
  const mapFile = findMapFile();
  try {
    if (mapFile) return { path, bytes: new Uint8Array(mapFile(path)), isMapped: true };
    return { path, bytes: readWhole(path), isMapped: false };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw badModel(message.includes(path) ? message : `${path}: ${message}`);
  }
}

function findMapFile(): ((path: string) => ArrayBuffer) | null {
  try {
    const addon = loadAddon();
    return (path) => addon.mapFile(path);
  } catch {
    // Not built: the reference backend needs no native code.
    return null;
  }
}

function readWhole(path: string): Uint8Array {
  const file = openSync(path, 'r');
  try {
    const bytes = new Uint8Array(fstatSync(file).size);
    for (let done = 0; done < bytes.length;) {
      const count = readSync(file, bytes, done, Math.min(bytes.length - done, 2 ** 30), done);
      if (count === 0) throw new Error('ended while it was read');
      done += count;
    }
    return bytes;
  } finally {
    closeSync(file);
  }
}
