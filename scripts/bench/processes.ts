// The processes of a server as /proc shows them (Linux). Of one that is gone everything is empty.
import { readdirSync, readFileSync } from 'node:fs';

/** A zombie does not count: it has ended, and waits for a parent that has other things to do. */
export function isAlive(pid: number): boolean {
  const state = /^State:\s+(\w)/m.exec(read(pid, 'status'))?.[1];
  return state !== undefined && state !== 'Z';
}

/** As in "vllm-ts: worker 0". */
export function titleOf(pid: number): string {
  return read(pid, 'cmdline').split('\0')[0]!;
}

/** Processor time so far, user and system, in ticks of 10 ms. */
export function ticksOf(pid: number): number {
  // The name, in brackets, may hold spaces.
  const fields = read(pid, 'stat')
    .replace(/^.*\) /, '')
    .split(' ');
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
}

/** Children, their children, and so on. */
export function descendants(pid: number): number[] {
  const parents = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .map((child) => [child, Number(/^PPid:\s+(\d+)/m.exec(read(child, 'status'))?.[1])]);
  const found: number[] = [];
  for (let wave = [pid]; wave.length > 0;) {
    wave = parents.filter(([, parent]) => wave.includes(parent!)).map(([child]) => child!);
    found.push(...wave);
  }
  return found;
}

function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
