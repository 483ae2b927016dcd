// How many connections the bound on open files leaves room for. Above that bound the system would
// accept a connection and close it without a word; ours are answered with 503.
import { StartError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { raiseFileLimit } from '../../common/os/index.ts';
import type { Config } from './config.ts';

/** Open files of a frontend beside its connections; the other processes have about a third. */
const filesBesides = 128;
const leastConnections = 16;
const leastFiles = filesBesides + leastConnections;

/** Raises this process's bound, which children inherit. Throws StartError (1) where it is too low. */
export function raiseOpenFiles(): number {
  const numFiles = raiseFileLimit();
  if (numFiles < leastFiles)
    throw new StartError(
      1,
      `this system allows ${numFiles} open files, a server needs ${leastFiles}: raise the bound (ulimit -n ${leastFiles}, or LimitNOFILE of systemd)`,
    );
  return numFiles;
}

/** Lowers --max-connections to what the bound leaves. */
export function fitOpenFiles(config: Config, log: Logger): Config {
  const numFiles = raiseOpenFiles();
  const { maxConnections } = config.flags;
  const most = numFiles - filesBesides;
  if (maxConnections > 0 && maxConnections <= most) return config;
  const asked = maxConnections === 0 ? 'any number' : `--max-connections ${maxConnections}`;
  log.warn(
    `this system allows ${numFiles} open files: ${most} connections are taken, not ${asked}`,
  );
  return { ...config, flags: { ...config.flags, maxConnections: most } };
}
