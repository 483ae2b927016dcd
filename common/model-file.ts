// Reads the small files of a model folder, which are a stranger's: plain files of bounded size only
// (a named pipe would stand still for ever), and JSON that is no bomb. Errors name the file.
import { readFileSync, statSync, type Stats } from 'node:fs';
import { badModel } from './errors.ts';
import { parseModelJson } from './json-bounds.ts';
import { isObject, type Json } from './json-object.ts';

const maxJsonBytes = 16 * 1024 * 1024;

/** null if there is nothing of that name. Throws StartError (exit 65) where that cannot be told. */
export function statModelPath(path: string): Stats | null {
  return named(path, () => {
    try {
      return statSync(path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR') return null;
      throw error;
    }
  });
}

/** null if there is no such file. Throws StartError (exit 65). */
export function readModelFile(path: string, maxBytes: number): Buffer | null {
  const stat = statModelPath(path);
  if (!stat) return null;
  if (!stat.isFile()) throw badModel(`${path} is not a file`);
  if (stat.size > maxBytes) throw badModel(`${path} is larger than ${maxBytes} bytes`);
  return named(path, () => readFileSync(path));
}

/** The same of a file that must hold a JSON object. */
export function readModelJson(path: string, maxBytes = maxJsonBytes): Json | null {
  const bytes = readModelFile(path, maxBytes);
  if (bytes === null) return null;
  const value = named(path, () => parseModelJson(bytes));
  if (!isObject(value)) throw badModel(`${path}: it is not a JSON object`);
  return value;
}

/** What goes wrong in `body` is a fault of the file. */
function named<T>(path: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw badModel(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
