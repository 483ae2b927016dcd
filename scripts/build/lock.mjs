// One build at a time in a folder: a lock file that holds the builder's pid. A lock whose process
// is gone is taken over, by one of those who wait.
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { BuildError } from './compiler.mjs';
import { isUnwritable } from './seen.mjs';

const pollMs = 100;
/** A lock without a pid is either being written, or its process was killed before it could. */
const emptyMs = 10_000;

const sleep = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/** Throws BuildError, marked as `isUnwritable`, where nothing can be built in the file's folder. */
export async function withLock(file, action) {
  while (!take(file)) {
    const owner = readOwner(file);
    if (isAbandoned(file, owner)) removeLock(file, owner);
    else sleep(pollMs);
  }
  try {
    return await action();
  } finally {
    rmSync(file, { force: true });
  }
}

function take(file) {
  try {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${process.pid}`, { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    if (!isUnwritable(error)) throw error;
    const why = `what is stale cannot be built: ${dirname(file)} cannot be written (${error.code})`;
    throw Object.assign(new BuildError(why), { isUnwritable: true });
  }
}

/** The pid in it; 0 for none, null where there is no lock any more. */
function readOwner(file) {
  try {
    return Number(readFileSync(file, 'utf8'));
  } catch {
    return null;
  }
}

function isAbandoned(file, owner) {
  if (owner === null) return false;
  if (owner === 0) {
    const stat = statSync(file, { throwIfNoEntry: false });
    return stat !== undefined && Date.now() - stat.mtimeMs > emptyMs;
  }
  try {
    process.kill(owner, 0);
    return false;
  } catch (error) {
    return error.code === 'ESRCH';
  }
}

/** Removes the lock if it still is `owner`'s: another process may have taken it over by now. */
function removeLock(file, owner) {
  const aside = `${file}.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch {
    return;
  }
  if (readOwner(aside) === owner) rmSync(aside);
  else renameSync(aside, file);
}
