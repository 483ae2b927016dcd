// How many threads a CPU backend should have: physical cores of the affinity mask, within the
// cgroup's quota. Two hyperthreads share one set of multipliers, so a thread each gains nothing.
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { cgroupFolders, readText, type ReadText } from '../common/system-text.ts';

export function defaultNumThreads(read: ReadText = readText): number {
  const cores = numPhysicalCores(read) ?? availableParallelism();
  return Math.max(1, Math.min(cores, Math.floor(cgroupCpuQuota(read))));
}

/** null where /proc and /sys do not tell. */
function numPhysicalCores(read: ReadText): number | null {
  const allowed = /^Cpus_allowed_list:\s*(\S+)/m.exec(read('/proc/self/status') ?? '')?.[1];
  if (allowed === undefined) return null;
  const cores = new Set<string>();
  for (const cpu of parseCpuList(allowed)) {
    const siblings = read(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`);
    cores.add(siblings?.trim() ?? `cpu ${cpu}`);
  }
  return cores.size || null;
}

/** "0-3,8" -> 0 1 2 3 8 */
function parseCpuList(text: string): number[] {
  return text.split(',').flatMap((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** CPUs that the cgroup grants, Infinity without a quota; the smallest on the way to the root. */
function cgroupCpuQuota(read: ReadText): number {
  let quota = Infinity;
  for (let path = cgroupFolders(read).unified; ; path = dirname(path)) {
    const [max, period] = (read(join('/sys/fs/cgroup', path, 'cpu.max')) ?? '').trim().split(' ');
    if (Number(max) > 0 && Number(period) > 0)
      quota = Math.min(quota, Number(max) / Number(period));
    if (path === '/' || path === '.') break;
  }
  const legacy = '/sys/fs/cgroup/cpu';
  const max = Number(read(join(legacy, 'cpu.cfs_quota_us')) ?? -1);
  const period = Number(read(join(legacy, 'cpu.cfs_period_us')) ?? 0);
  return max > 0 && period > 0 ? Math.min(quota, max / period) : quota;
}
