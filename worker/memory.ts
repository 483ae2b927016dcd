// How much memory there is for weights and KV cache on the host: of this machine, or of the cgroup
// where that grants less. What the page cache holds counts as free, because it gives way.
import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';

/** What the system says; tests say otherwise. */
export interface MemorySource {
  readonly totalBytes: number;
  /** Of the cgroup; 0, or more than there is, where it grants everything. */
  readonly limitBytes: number;
  /** Of the limit or the machine; within a limit the page cache counts as taken. */
  readonly freeBytes: number;
  /** A file's text, null if it cannot be read. */
  readonly read: (path: string) => string | null;
}

export interface Memory {
  readonly totalBytes: number;
  /** That this process could still take. */
  readonly availableBytes: number;
}

export function hostMemory(source: MemorySource = system()): Memory {
  const { totalBytes, limitBytes, freeBytes } = source;
  const isLimited = limitBytes > 0 && limitBytes < totalBytes;
  if (!isLimited) return { totalBytes, availableBytes: freeBytes };
  const availableBytes = Math.min(limitBytes, freeBytes + pageCacheBytes(source.read));
  return { totalBytes: limitBytes, availableBytes };
}

function system(): MemorySource {
  return {
    totalBytes: totalmem(),
    limitBytes: process.constrainedMemory(),
    freeBytes: process.availableMemory(),
    read: (path) => {
      try {
        return readFileSync(path, 'utf8');
      } catch {
        return null;
      }
    },
  };
}

/** Of this process's cgroup, with the groups below it; 0 where that is not told. */
function pageCacheBytes(read: MemorySource['read']): number {
  const groups = read('/proc/self/cgroup') ?? '';
  const legacy = /^\d+:memory:(.*)$/m.exec(groups)?.[1];
  const unified = /^0::(.*)$/m.exec(groups)?.[1] ?? '/';
  const folder = legacy === undefined ? unified : join('memory', legacy);
  const stat = read(join('/sys/fs/cgroup', folder, 'memory.stat')) ?? '';
  const prefix = legacy === undefined ? '' : 'total_';
  const counts = stat.matchAll(new RegExp(`^${prefix}(?:in)?active_file (\\d+)$`, 'gm'));
  return [...counts].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}
