// A cheap answer to "has anything changed?": names, sizes and times of a build's inputs, kept from
// when it was last found current. The same: nothing to do. Another: only the contents can tell.
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What `files` (relative to root, or absolute) look like from outside, after `extra` lines. */
export function lookAt(root, files, extra = []) {
  const lines = files.map((file) => {
    const stat = statSync(file.startsWith('/') ? file : join(root, file), { throwIfNoEntry: false });
    return `${file} ${stat?.size} ${stat?.mtimeMs}`;
  });
  return [...extra, ...lines].join('\n');
}

export function isAsSeen(file, look) {
  try {
    return readFileSync(file, 'utf8') === look;
  } catch {
    return false;
  }
}

/** Call with a look taken before the contents were read. */
export function keepLook(file, look) {
  writeFileSync(file, look);
}
