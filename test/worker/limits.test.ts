// Memory and threads: what is decided when the operator says nothing, and what is refused.
import t from 'tap';
import { hostMemory } from '../../common/host-memory.ts';
import { defaultNumThreads } from '../../worker/cpu-limits.ts';
import { numKvBlocks, type KvSizeRequest } from '../../worker/kv-size.ts';

const request: KvSizeRequest = {
  blockBytes: 1 << 20,
  blockSize: 16,
  maxNumSeqs: 1000,
  maxModelLen: 160,
  fitModelLen: false,
  slidingWindow: 0,
  maxNumBatchedTokens: 2048,
  kvCacheMemoryBytes: null,
  availableBytes: 64 * 2 ** 30,
  weightBytes: 0,
};

t.test('the KV cache is the smallest of 4 GiB, 40 % of memory and what rows can fill', (t) => {
  t.equal(numKvBlocks(request), 4096);
  t.equal(numKvBlocks({ ...request, availableBytes: 1000 * 2 ** 20 }), 400);
  const small = { ...request, availableBytes: 5000 * 2 ** 20, weightBytes: 4000 * 2 ** 20 };
  t.equal(numKvBlocks(small), 400, 'of what weights leave');
  t.throws(() => numKvBlocks({ ...small, weightBytes: 6000 * 2 ** 20 }), {
    message: /has 0 bytes \(40 % of what weights of 6291456000 leave of 5242880000\), but one/,
  });
  t.throws(() => numKvBlocks({ ...request, blockBytes: 2 ** 30 }), {
    message: /has 4294967296 bytes \(the most that is taken unasked\), but one/,
  });
  t.equal(numKvBlocks({ ...request, maxNumSeqs: 20 }), 201, 'and the null block');
  t.equal(numKvBlocks({ ...request, kvCacheMemoryBytes: 6 * 2 ** 30 }), 6144);
  t.equal(numKvBlocks({ ...request, kvCacheMemoryBytes: 11 * 2 ** 20 }), 11);
  const vast = { ...request, maxModelLen: 2 ** 27, kvCacheMemoryBytes: Number.MAX_SAFE_INTEGER };
  t.equal(numKvBlocks({ ...vast, blockBytes: 1 << 10 }), 2 ** 26, 'and what block ids can be');
  const window = { ...request, maxNumSeqs: 20, maxModelLen: 4096, maxNumBatchedTokens: 32 };
  t.equal(numKvBlocks({ ...window, slidingWindow: 65 }), 1 + 20 * (Math.ceil(159 / 16) + 1));
  t.end();
});

t.test('less than one request is refused with both numbers, both flags and what fits', (t) => {
  const small = { ...request, kvCacheMemoryBytes: 11 * 2 ** 20 - 1 };
  t.throws(() => numKvBlocks(small), {
    exitCode: 64,
    message:
      /has 11534335 bytes, but one request of 160 tokens needs 11534336: raise --kv-cache-memory-bytes, or lower --max-model-len to 144 or less$/,
  });
  t.equal(numKvBlocks({ ...small, maxModelLen: 144 }), 10);
  t.throws(() => numKvBlocks({ ...small, maxModelLen: 145 }), { message: /one request of 145/ });
  t.throws(() => numKvBlocks({ ...request, kvCacheMemoryBytes: 2 ** 20 }), {
    message: /needs 11534336: raise --kv-cache-memory-bytes$/,
  });
  t.end();
});

t.test('where the length fits itself to it, any request will do', (t) => {
  const fit = { ...request, fitModelLen: true };
  t.equal(numKvBlocks({ ...fit, kvCacheMemoryBytes: 3 * 2 ** 20 }), 3);
  t.equal(numKvBlocks({ ...fit, kvCacheMemoryBytes: 2 * 2 ** 20 }), 2);
  t.throws(() => numKvBlocks({ ...fit, kvCacheMemoryBytes: 2 ** 20 }), {
    exitCode: 64,
    message: /has 1048576 bytes/,
  });
  t.end();
});

t.test('memory is that of the cgroup where it grants less, and its page cache gives way', (t) => {
  const gib = 2 ** 30;
  const memory = (limit: number, free: number, files: Readonly<Record<string, string>>) => {
    const read = (path: string) => files[path] ?? null;
    const source = { totalBytes: 64 * gib, limitBytes: limit * gib, freeBytes: free * gib, read };
    const { totalBytes, availableBytes } = hostMemory(source);
    return [totalBytes / gib, availableBytes / gib];
  };
  const stat = (prefix: string) =>
    `anon ${gib}\nfile ${9 * gib}\n${prefix}inactive_file ${4 * gib}\n${prefix}active_file ${gib}\n`;
  const unified = {
    '/proc/self/cgroup': '0::/a/b\n',
    '/sys/fs/cgroup/a/b/memory.stat': stat(''),
  };
  t.same(memory(0, 20, unified), [64, 20]);
  t.same(memory(2 ** 33, 20, unified), [64, 20], 'no limit as a large one');
  t.same(memory(16, 9, unified), [16, 14]);
  t.same(memory(16, 13, unified), [16, 16], 'never more than the limit');
  t.same(memory(16, 9, {}), [16, 9]);
  const legacy = {
    '/proc/self/cgroup': '3:cpu:/x\n5:memory:/c\n',
    '/sys/fs/cgroup/memory/c/memory.stat': `inactive_file 7\n${stat('total_')}`,
  };
  t.same(memory(16, 9, legacy), [16, 14]);
  t.end();
});

function threads(files: Readonly<Record<string, string>>): number {
  return defaultNumThreads((path) => files[path] ?? null);
}

function machine(allowed: string, siblings: Readonly<Record<number, string>>) {
  const files: Record<string, string> = { '/proc/self/status': `Cpus_allowed_list:\t${allowed}\n` };
  for (const [cpu, list] of Object.entries(siblings))
    files[`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`] = `${list}\n`;
  return files;
}

t.test('threads are physical cores of the affinity mask', (t) => {
  const siblings = {
    0: '0,4',
    1: '1,5',
    2: '2,6',
    3: '3,7',
    4: '0,4',
    5: '1,5',
    6: '2,6',
    7: '3,7',
  };
  t.equal(threads(machine('0-7', siblings)), 4);
  t.equal(threads(machine('0-1,4', siblings)), 2);
  t.equal(threads(machine('5', siblings)), 1);
  t.equal(threads(machine('0-2', {})), 3, 'without topology every CPU is a core');
  t.end();
});

t.test('threads stay within the quota of the cgroup and its parents', (t) => {
  const files = machine('0-7', {});
  const group = { ...files, '/proc/self/cgroup': '0::/a/b\n' };
  t.equal(threads({ ...group, '/sys/fs/cgroup/a/b/cpu.max': '250000 100000\n' }), 2);
  t.equal(threads({ ...group, '/sys/fs/cgroup/a/b/cpu.max': 'max 100000\n' }), 8);
  t.equal(threads({ ...group, '/sys/fs/cgroup/a/cpu.max': '300000 100000\n' }), 3);
  t.equal(threads({ ...group, '/sys/fs/cgroup/cpu.max': '50000 100000\n' }), 1, 'at least one');
  const legacy = {
    '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '400000\n',
    '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
  };
  t.equal(threads({ ...files, ...legacy }), 4);
  t.equal(threads({ ...files, ...legacy, '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1' }), 8);
  t.end();
});
