// Reads the small files of a model folder, which are a stranger's: plain files of bounded size only
// (a named pipe would stand still for ever), and JSON that is no bomb. Errors name the file.
import { readFileSync, statSync } from 'node:fs';
import { badModel } from './errors.ts';
import { parseModelJson } from './json-bounds.ts';
import { isObject, type Json } from './json-object.ts';

const maxJsonBytes = 16 * 1024 * 1024;

/** null if there is no such file. Throws StartError (exit 65). */
export function readModelFile(path: string, maxBytes: number): Buffer | null {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return null;
  if (!stat.isFile()) throw badModel(`${path} is not a file`);
  if (stat.size > maxBytes) throw badModel(`${path} is larger than ${maxBytes} bytes`);
  try {
    return readFileSync(path);
  } catch (error) {
    throw badModel(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The same of a file that must hold a JSON object. */
export function readModelJson(path: string, maxBytes = maxJsonBytes): Json | null {
  const bytes = readModelFile(path, maxBytes);
  if (bytes === null) return null;
  let value: unknown;
  try {
    value = parseModelJson(bytes);
  } catch (error) {
    throw badModel(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isObject(value)) throw badModel(`${path}: it is not a JSON object`);
  return value;
}
