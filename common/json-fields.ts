// Typed access to a JSON file of a model folder: every field that is read is checked, and an error
// names file and field. Knows nothing of what the fields mean.
import { join } from 'node:path';
import { badModel, type StartError } from './errors.ts';
import { isObject, type Json } from './json-object.ts';
import { readModelJson } from './model-file.ts';

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
    const values = readModelJson(path);
    return values && new JsonFields(path, values);
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

function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
