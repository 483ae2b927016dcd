// How many connections the bound on open files leaves room for. Above that bound the system would
// accept a connection and close it without a word; ours are answered with 503.
import type { Logger } from '../../common/log.ts';
import { raiseFileLimit } from '../../common/os/index.ts';
import type { Config } from './config.ts';

/** Open files of a frontend beside its connections. */
const filesBesides = 128;
const leastConnections = 16;

/** Raises this process's bound, which children inherit, and lowers --max-connections to it. */
export function fitOpenFiles(config: Config, log: Logger): Config {
  const numFiles = raiseFileLimit();
  const { maxConnections } = config.flags;
  const most = Math.max(leastConnections, numFiles - filesBesides);
  if (maxConnections > 0 && maxConnections <= most) return config;
  log.warn(
    `this system allows ${numFiles} open files: ${most} connections are taken, not --max-connections ${maxConnections}`,
  );
  return { ...config, flags: { ...config.flags, maxConnections: most } };
}
