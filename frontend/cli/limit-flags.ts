// Flags of what requests and connections may ask for, each with the limit that it raises.
import { defaultHttpLimits as limits } from '../../common/limits.ts';
import { integer, maxInt, type Flag } from './flag.ts';

export const limitFlags = {
  maxN: integer('--max-n', limits.n, 1, 16_384, 'most choices of a prompt (n)'),
  maxStopStrings: integer('--max-stop-strings', limits.stop, 0, 1024, 'most stop strings'),
  maxStopBytes: integer('--max-stop-bytes', limits.stopBytes, 1, 65_535, 'bytes of a stop string'),
  maxLogitBias: integer(
    '--max-logit-bias',
    limits.logitBias,
    0,
    1_000_000,
    'most entries of logit_bias',
  ),
  maxChoices: integer(
    '--max-choices',
    limits.choices,
    1,
    65_536,
    'most prompts times n of a completions request',
  ),
  maxBodyBytes: integer(
    '--max-body-bytes',
    limits.bodyBytes,
    1024,
    256 * 1024 * 1024,
    'largest body of a request',
  ),
  maxHeaderBytes: integer(
    '--max-header-bytes',
    limits.headerBytes,
    1024,
    1024 * 1024,
    'largest headers of a request',
  ),
  maxJsonDepth: integer('--max-json-depth', limits.jsonDepth, 4, 1000, 'deepest nesting of a body'),
  maxConnections: integer(
    '--max-connections',
    limits.connections,
    0,
    1_000_000,
    'open connections before more get 503; 0 = no bound',
  ),
  maxConnectionsPerAddress: integer(
    '--max-connections-per-address',
    limits.connectionsPerAddress,
    0,
    1_000_000,
    'the same for one address (IPv6: one /64); 0 = no bound',
  ),
  maxRequestsPerConnection: integer(
    '--max-requests-per-connection',
    limits.requestsPerConnection,
    0,
    maxInt,
    'requests before a connection is closed; 0 = no bound',
  ),
} as const satisfies Record<string, Flag<unknown>>;
