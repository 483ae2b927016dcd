// How much memory there is for weights and KV cache on the host: of this machine, or of the cgroup
// where that grants less. What the page cache holds counts as free, because it gives way.
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { cgroupFolders, readText, type ReadText } from './system-text.ts';

/** What the system says; tests say otherwise. */
export interface MemorySource {
  readonly totalBytes: number;
  /** Of the cgroup; 0, or more than there is, where it grants everything. */
  readonly limitBytes: number;
  /** Of the limit or the machine; within a limit the page cache counts as taken. */
  readonly freeBytes: number;
  readonly read: ReadText;
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

/**
 * The memory that the first rank of a generation finds, for all of them: what a sibling has packed
 * meanwhile is in its own share.
 */
export function memoryOfGenerations(read: () => Memory = hostMemory): (of: number) => Memory {
  let last: { readonly generation: number; readonly memory: Memory } | null = null;
  return (generation) => {
    if (last?.generation !== generation) last = { generation, memory: read() };
    return last.memory;
  };
}

function system(): MemorySource {
  return {
    totalBytes: totalmem(),
    limitBytes: process.constrainedMemory(),
    freeBytes: process.availableMemory(),
    read: readText,
  };
}

/** Of this process's cgroup, with the groups below it; 0 where that is not told. */
function pageCacheBytes(read: ReadText): number {
  const { unified, legacyMemory } = cgroupFolders(read);
  const folder = legacyMemory === null ? unified : join('memory', legacyMemory);
  const stat = read(join('/sys/fs/cgroup', folder, 'memory.stat')) ?? '';
  const prefix = legacyMemory === null ? '' : 'total_';
  const counts = stat.matchAll(new RegExp(`^${prefix}(?:in)?active_file (\\d+)$`, 'gm'));
  return [...counts].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}
