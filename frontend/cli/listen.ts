// The listening socket, bound before anything else, so that a port in use is told at once; and how
// a user reaches it.
import { StartError } from '../../common/errors.ts';
import { listenTcp, listenUnix, type Listening } from '../../common/os/index.ts';
import type { Config } from './config.ts';
import { hostPort } from './host-port.ts';

/** Throws StartError (1) with one line that says what is in the way. */
export function bindHttp({ host, flags: { uds, port } }: Config): Listening {
  const where = uds ?? `${host} port ${port}`;
  try {
    return uds === null ? listenTcp(host, port) : listenUnix(uds);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const flag = uds === null ? '--port' : '--uds';
    if (code === 'EADDRINUSE')
      throw new StartError(1, `${where} is in use by another process; choose another with ${flag}`);
    if (code === 'EEXIST') throw new StartError(1, `${where} exists and is not a socket`);
    throw new StartError(1, `cannot listen on ${where}: ${message}`);
  }
}

/** The server's base URL; for a unix socket that of curl's --unix-socket. */
export function baseUrl(config: Config, port: number): string {
  const scheme = config.flags.sslKeyfile === null ? 'http' : 'https';
  if (config.flags.uds !== null) return `${scheme}://localhost`;
  // A client cannot connect to "any address".
  const host = ['0.0.0.0', '::'].includes(config.host) ? 'localhost' : config.host;
  return `${scheme}://${hostPort(host, port)}`;
}

/** A command to try, on one line. */
export function curlLine(config: Config, port: number): string {
  const { flags, apiKeys, names } = config;
  const body = { model: names[0], prompt: 'Once upon a time', max_tokens: 64, stream: true };
  return [
    'curl -N',
    ...(flags.uds === null ? [] : [`--unix-socket ${quote(flags.uds)}`]),
    `${baseUrl(config, port)}${flags.rootPath ?? ''}/v1/completions`,
    "-H 'content-type: application/json'",
    ...(apiKeys.length === 0 ? [] : ['-H "authorization: Bearer $VLLM_API_KEY"']),
    `-d ${quote(JSON.stringify(body))}`,
  ].join(' ');
}

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
