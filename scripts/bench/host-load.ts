// What the machine did to processes while they were measured (Linux): how long their threads were
// ready to run and did not (schedstat), how often they were woken, and what the hypervisor took.
import { readdirSync, readFileSync } from 'node:fs';

/** Times in ms, counts since the beginning of the thread. */
export interface ThreadLoad {
  readonly cpuMs: number;
  /** On a run queue, while another had the processor. */
  readonly queuedMs: number;
  /** It went to sleep by itself, and so was woken that often. */
  readonly numWakeUps: number;
}

export interface HostLoad {
  readonly atUs: number;
  /** Of the whole machine. */
  readonly stolenMs: number;
  /** "engine: ZMQbg/IO/0" and so on. */
  readonly threads: ReadonlyMap<string, ThreadLoad>;
}

const tickMs = 10;

/** `processes`: name -> process id. */
export function readHostLoad(processes: ReadonlyMap<string, number>): HostLoad {
  const threads = new Map<string, ThreadLoad>();
  for (const [name, pid] of processes)
    for (const tid of list(`/proc/${pid}/task`)) {
      const path = `/proc/${pid}/task/${tid}`;
      const [cpuNs = 0, queuedNs = 0] = read(`${path}/schedstat`).trim().split(' ').map(Number);
      const status = read(`${path}/status`);
      const thread = Number(tid) === pid ? 'event loop' : /^Name:\s+(.*)$/m.exec(status)?.[1];
      const numWakeUps = Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1] ?? 0);
      threads.set(`${name}: ${thread} ${Number(tid) - pid}`, {
        cpuMs: cpuNs / 1e6,
        queuedMs: queuedNs / 1e6,
        numWakeUps,
      });
    }
  const steal = Number(read('/proc/stat').split('\n')[0]?.trim().split(/\s+/)[8] ?? 0);
  return { atUs: Number(process.hrtime.bigint()) / 1000, stolenMs: steal * tickMs, threads };
}

/** From `before` to `after`, by thread. */
export function loadBetween(before: HostLoad, after: HostLoad): HostLoad {
  const threads = new Map<string, ThreadLoad>();
  for (const [name, end] of after.threads) {
    const start = before.threads.get(name) ?? { cpuMs: 0, queuedMs: 0, numWakeUps: 0 };
    threads.set(name, {
      cpuMs: end.cpuMs - start.cpuMs,
      queuedMs: end.queuedMs - start.queuedMs,
      numWakeUps: end.numWakeUps - start.numWakeUps,
    });
  }
  return { atUs: after.atUs, stolenMs: after.stolenMs - before.stolenMs, threads };
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
