// Typed access to a JSON file of a model folder: every field that is read is checked, and an error
// names file and field. Knows nothing of what the fields mean.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodes, StartError } from './errors.ts';

const maxJsonBytes = 16 * 1024 * 1024;

export type Json = Readonly<Record<string, unknown>>;

export interface Range {
  readonly min: number;
  readonly max: number;
}

export class JsonFields {
  /** For errors: the file, and where in it. */
  readonly where: string;
  private readonly values: Json;

  constructor(where: string, values: Json) {
    this.where = where;
    this.values = values;
  }

  /** null if there is no such file; StartError if it is not a JSON object. */
  static readOptional(folder: string, file: string): JsonFields | null {
    const path = join(folder, file);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) return null;
    if (!stat.isFile()) throw badModel(`${path} is not a file`);
    if (stat.size > maxJsonBytes) throw badModel(`${path} is over ${maxJsonBytes} bytes`);
    let value: unknown;
    try {
      value = JSON.parse(readFileSync(path, 'utf8'));
    } catch (error) {
      throw badModel(`${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (!isObject(value)) throw badModel(`${path} is not a JSON object`);
    return new JsonFields(path, value);
  }

  static read(folder: string, file: string): JsonFields {
    const fields = JsonFields.readOptional(folder, file);
    if (fields) return fields;
    throw badModel(`${join(folder, file)} does not exist: a Hugging Face model folder has one`);
  }

  /** An explicit null is as if it were missing. */
  has(name: string): boolean {
    return this.raw(name) !== undefined;
  }

  raw(name: string): unknown {
    const value = Object.hasOwn(this.values, name) ? this.values[name] : undefined;
    return value === null ? undefined : value;
  }

  fail(name: string, message: string): StartError {
    return badModel(`${this.where}: ${name} ${message}`);
  }

  integer(name: string, { min, max }: Range, fallback?: number): number {
    const value = this.raw(name) ?? fallback;
    if (value === undefined) throw this.fail(name, 'is missing');
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max)
      throw this.fail(name, `must be an integer from ${min} to ${max}, not ${show(value)}`);
    return value as number;
  }

  number(name: string, { min, max }: Range, fallback?: number): number {
    const value = this.raw(name) ?? fallback;
    if (value === undefined) throw this.fail(name, 'is missing');
    if (typeof value !== 'number' || !(value >= min && value <= max))
      throw this.fail(name, `must be a number from ${min} to ${max}, not ${show(value)}`);
    return value;
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.raw(name) ?? fallback;
    if (typeof value !== 'boolean') throw this.fail(name, `must be a boolean, not ${show(value)}`);
    return value;
  }

  string(name: string, fallback?: string): string {
    const value = this.raw(name) ?? fallback;
    if (value === undefined) throw this.fail(name, 'is missing');
    if (typeof value !== 'string') throw this.fail(name, `must be a string, not ${show(value)}`);
    return value;
  }

  /** One integer or a list of them; missing is an empty list. */
  integers(name: string, { min, max }: Range): number[] {
    const value = this.raw(name) ?? [];
    const list: unknown[] = Array.isArray(value) ? value : [value];
    for (const item of list)
      if (!Number.isInteger(item) || (item as number) < min || (item as number) > max)
        throw this.fail(name, `must be integers from ${min} to ${max}, not ${show(value)}`);
    return list as number[];
  }

  object(name: string): JsonFields | null {
    const value = this.raw(name);
    if (value === undefined) return null;
    if (!isObject(value)) throw this.fail(name, `must be an object, not ${show(value)}`);
    return new JsonFields(`${this.where}: ${name}`, value);
  }
}

export function badModel(message: string): StartError {
  return new StartError(exitCodes.badModel, message);
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
