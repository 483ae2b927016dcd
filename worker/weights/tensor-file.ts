// A file's bytes, in slices: mapped read-only through the native addon where it is built, so that
// the page cache is the only copy, else read. Nobody writes to them.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { badModel } from '../../common/errors.ts';
import { loadAddon } from '../../kernels/addon.ts';

export interface TensorFile {
  readonly path: string;
  readonly numBytes: number;
  /** Bytes [begin, end), no more than buffer.constants.MAX_LENGTH. Throws StartError (exit 65). */
  slice(begin: number, end: number): Uint8Array;
}

/** Throws StartError (exit 65). */
export function openTensorFile(path: string): TensorFile {
  const mapFile = findMapFile();
  return named(path, () => {
    const mapped = mapFile?.(path);
    const numBytes = mapped?.numBytes ?? sizeOf(path);
    const slice = (begin: number, end: number) =>
      named(path, () =>
        mapped ? new Uint8Array(mapped.slice(begin, end)) : readSlice(path, begin, end),
      );
    return { path, numBytes, slice };
  });
}

/** What goes wrong in `body` is a fault of the file. */
function named<T>(path: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw badModel(message.includes(path) ? message : `${path}: ${message}`);
  }
}

function findMapFile() {
  try {
    const addon = loadAddon();
    return (path: string) => addon.mapFile(path);
  } catch {
    // Not built: the reference backend needs no native code.
    return null;
  }
}

function sizeOf(path: string): number {
  return withFile(path, (file) => fstatSync(file).size);
}

function readSlice(path: string, begin: number, end: number): Uint8Array {
  return withFile(path, (file) => {
    const bytes = new Uint8Array(end - begin);
    for (let done = 0; done < bytes.length;) {
      const length = Math.min(bytes.length - done, 2 ** 30);
      const count = readSync(file, bytes, done, length, begin + done);
      if (count === 0) throw new Error('ended while it was read');
      done += count;
    }
    return bytes;
  });
}

function withFile<T>(path: string, body: (file: number) => T): T {
  const file = openSync(path, 'r');
  try {
    return body(file);
  } finally {
    closeSync(file);
  }
}
