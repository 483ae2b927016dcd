// What /proc and /sys say, as text.
import { readFileSync } from 'node:fs';

/** A file's text, null if it cannot be read. */
export type ReadText = (path: string) => string | null;

export function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

/** Folders of this process's cgroups under /sys/fs/cgroup: of version 2, and of memory in version 1. */
export function cgroupFolders(read: ReadText): { unified: string; legacyMemory: string | null } {
  const groups = read('/proc/self/cgroup') ?? '';
  return {
    unified: /^0::(.*)$/m.exec(groups)?.[1] ?? '/',
    legacyMemory: /^\d+:memory:(.*)$/m.exec(groups)?.[1] ?? null,
  };
}
