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

/** Call with a look taken before the contents were read. Who may not write looks again next time. */
export function keepLook(file, look) {
  try {
    writeFileSync(file, look);
  } catch (error) {
    if (!isUnwritable(error)) throw error;
  }
}

/** The file belongs to somebody else, or to a file system that is read only. */
export const isUnwritable = ({ code }) => ['EACCES', 'EPERM', 'EROFS'].includes(code);
