// The operating system's part that Node does not reach: listening sockets to hand down, death with
// the parent, the limit of open files, how soon a woken thread runs. os.cc does the work; nothing
// here knows what is served.
import { closeSync } from 'node:fs';
import { loadNative } from '../native.ts';

interface OsModule {
  listenTcp(host: string, port: number, backlog: number): Listening;
  listenUnix(path: string, backlog: number): Listening;
  dieWithParent(parentPid: number, fd: number): void;
  raiseFileLimit(): number;
  requestSlice(ns: number): boolean;
  isSignalIgnored(signal: number): boolean;
}

/** A bound, listening socket; close-on-exec, so that only a child that is given it has it. */
export interface Listening {
  readonly fd: number;
  /** The real one if 0 was asked for; 0 for a unix socket. */
  readonly port: number;
}

let loaded: OsModule | null = null;
const os = (): OsModule => (loaded ??= loadNative('os') as OsModule);

/** Connections that may wait for accept(); the kernel caps it (net.core.somaxconn). */
const backlog = 4096;

/** Binds a host name or address; an error has Node's `code` (EADDRINUSE, EACCES, ...). */
export const listenTcp = (host: string, port: number) => os().listenTcp(host, port, backlog);

/** Binds a path; a socket file that nobody listens on is replaced, a live one is EADDRINUSE. */
export const listenUnix = (path: string) => os().listenUnix(path, backlog);

export const closeListening = (listening: Listening) => closeSync(listening.fd);

/**
 * Kills this process when its parent dies: by the kernel (Linux), and when the parent's end of the
 * pipe `fd` closes (-1 = no pipe). Ends it at once if the parent is not `parentPid` any more.
 */
export const dieWithParent = (parentPid: number, fd: number) => {
  os().dieWithParent(parentPid, fd);
};

/** Raises the soft limit of open files to the hard one, for this process and its children. */
export const raiseFileLimit = () => os().raiseFileLimit();

/**
 * Asks for short turns of this thread and of those that it starts from now on, so that the kernel
 * lets them run as soon as they are woken, before threads with longer turns (V8's compiler and
 * garbage collector, other processes). Returns whether it does: Linux from 6.12 on, EEVDF
 * (Documentation/scheduler/sched-eevdf.rst).
 */
export const requestSlice = (ns: number) => os().requestSlice(ns);

export const isSignalIgnored = (signal: number) => os().isSignalIgnored(signal);
