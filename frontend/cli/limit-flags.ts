// Flags of what requests and clients may ask for and take, each with the limit that it raises.
import {
  defaultHttpLimits as limits,
  defaultHttpTimeouts as timeouts,
  defaultReaderLimits as readers,
  defaultTextLimits as texts,
} from '../../common/limits.ts';
import { integer, maxInt, someSeconds, type Flag } from './flag.ts';

const mostBytes = 256 * 1024 * 1024;

const parameters = {
  maxN: integer('--max-n', limits.n, 1, 16_384, 'most choices of a prompt (n)'),
  maxChoices: integer(
    '--max-choices',
    limits.choices,
    1,
    65_536,
    'most prompts times n of a completions request',
  ),
  maxStopStrings: integer('--max-stop-strings', limits.stop, 0, 1024, 'most stop strings'),
  maxStopBytes: integer('--max-stop-bytes', limits.stopBytes, 1, 65_535, 'bytes of a stop string'),
  maxStopTokenIds: integer(
    '--max-stop-token-ids',
    limits.stopTokenIds,
    0,
    65_536,
    'most ids in stop_token_ids',
  ),
  maxLogitBias: integer(
    '--max-logit-bias',
    limits.logitBias,
    0,
    1_000_000,
    'most entries of logit_bias',
  ),
  maxBadWords: integer('--max-bad-words', limits.badWords, 0, 65_536, 'most bad_words'),
  maxBadWordBytes: integer(
    '--max-bad-word-bytes',
    limits.badWordBytes,
    1,
    65_536,
    'bytes of one of bad_words',
  ),
  maxBadWordTokens: integer(
    '--max-bad-word-tokens',
    limits.badWordTokens,
    1,
    65_536,
    'tokens of one of bad_words',
  ),
  maxCacheSaltBytes: integer(
    '--max-cache-salt-bytes',
    limits.cacheSaltBytes,
    1,
    65_536,
    'bytes of cache_salt',
  ),
};

const text = {
  maxMessages: integer('--max-messages', texts.messages, 1, 1_000_000, 'most messages of a chat'),
  maxTemplateKwargs: integer(
    '--max-template-kwargs',
    texts.templateArgs,
    0,
    1_000_000,
    'most values in chat_template_kwargs, nested ones included',
  ),
  maxTemplateKwargsCharacters: integer(
    '--max-template-kwargs-characters',
    texts.templateArgCharacters,
    0,
    mostBytes,
    'characters of all texts in chat_template_kwargs',
  ),
  maxTemplateCharacters: integer(
    '--max-template-characters',
    texts.templateCharacters,
    1,
    mostBytes,
    'characters that a chat template may write',
  ),
  maxTemplateSteps: integer(
    '--max-template-steps',
    texts.templateSteps,
    1,
    maxInt,
    'nodes that a chat template may evaluate, besides 2000 a message',
  ),
  maxDetokenizeIds: integer(
    '--max-detokenize-ids',
    texts.decodeIds,
    1,
    64 * 1024 * 1024,
    'most token ids of /detokenize',
  ),
  textTimeout: someSeconds(
    '--text-timeout',
    texts.callMs / 1000,
    'what tokenizing one text may take',
  ),
};

const connections = {
  maxBodyBytes: integer(
    '--max-body-bytes',
    limits.bodyBytes,
    1024,
    mostBytes,
    'largest body of a request',
  ),
  maxJsonDepth: integer('--max-json-depth', limits.jsonDepth, 4, 1000, 'deepest nesting of a body'),
  maxHeaderBytes: integer(
    '--max-header-bytes',
    limits.headerBytes,
    1024,
    1024 * 1024,
    'largest headers of a request',
  ),
  maxHeaders: integer('--max-headers', limits.headers, 16, 10_000, 'most headers of a request'),
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
  headersTimeout: someSeconds(
    '--headers-timeout',
    timeouts.headersMs / 1000,
    'what a TLS handshake, and the headers, may take',
  ),
  requestTimeout: someSeconds(
    '--request-timeout',
    timeouts.requestMs / 1000,
    'what a whole request may take to come',
  ),
  keepAliveTimeout: someSeconds(
    '--keep-alive-timeout',
    timeouts.keepAliveMs / 1000,
    'how long a connection may be idle',
  ),
  readerTimeout: someSeconds(
    '--reader-timeout',
    readers.stallMs / 1000,
    'how long an answer waits for a reader that takes nothing of it',
  ),
  maxUnreadBytes: integer(
    '--max-unread-bytes',
    readers.pendingBytes,
    4096,
    mostBytes,
    'text of one request that waits for a slow reader',
  ),
};

export const limitFlags = {
  ...parameters,
  ...text,
  ...connections,
} as const satisfies Record<string, Flag<unknown>>;
