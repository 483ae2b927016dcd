// What a build was made from, as one hash: files by content, and anything else by its text.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

/** Files under `folder` (relative to root) whose name ends in one of `endings`, sorted. */
export function listFiles(root, folder, endings) {
  let names;
  try {
    names = readdirSync(join(root, folder), { recursive: true });
  } catch {
    return [];
  }
  return names
    .map((name) => join(folder, String(name)))
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .sort();
}

export function hashOf(root, files, extra = []) {
  const hash = createHash('sha256');
  for (const text of extra) hash.update(`${text}\0`);
  for (const file of files) hash.update(`${file}\0`).update(readFileSync(join(root, file))).update('\0');
  return hash.digest('hex').slice(0, 16);
}

/** `file` and the headers of ours that it includes by `#include "..."`, whatever the depth. */
export function withHeaders(root, file) {
  const found = new Set([file]);
  for (const each of found)
    for (const [, name] of readFileSync(join(root, each), 'utf8').matchAll(/^#include "(.+)"/gm))
      found.add(normalize(join(dirname(each), name)));
  return [...found].sort();
}
