// The flags of limits as each process is told them.
import type {
  HttpLimits,
  HttpTimeouts,
  ReaderLimits,
  RequestLimits,
  TextLimits,
} from '../../common/limits.ts';
import type { Flags } from './flags.ts';

const inMs = (seconds: number) => Math.round(seconds * 1000);

export function requestLimits(flags: Flags): RequestLimits {
  return {
    n: flags.maxN,
    stop: flags.maxStopStrings,
    stopBytes: flags.maxStopBytes,
    stopTokenIds: flags.maxStopTokenIds,
    logitBias: flags.maxLogitBias,
    badWords: flags.maxBadWords,
    badWordTokens: flags.maxBadWordTokens,
    cacheSaltBytes: flags.maxCacheSaltBytes,
  };
}

export function textLimits(flags: Flags): TextLimits {
  return {
    messages: flags.maxMessages,
    templateCharacters: flags.maxTemplateCharacters,
    templateSteps: flags.maxTemplateSteps,
    templateArgs: flags.maxTemplateKwargs,
    templateArgCharacters: flags.maxTemplateKwargsCharacters,
    decodeIds: flags.maxDetokenizeIds,
    callMs: inMs(flags.textTimeout),
  };
}

export function readerLimits(flags: Flags): ReaderLimits {
  return { pendingBytes: flags.maxUnreadBytes, stallMs: inMs(flags.readerTimeout) };
}

export function httpLimits(flags: Flags): HttpLimits {
  return {
    ...requestLimits(flags),
    choices: flags.maxChoices,
    badWordBytes: flags.maxBadWordBytes,
    messages: flags.maxMessages,
    decodeIds: flags.maxDetokenizeIds,
    bodyBytes: flags.maxBodyBytes,
    headerBytes: flags.maxHeaderBytes,
    headers: flags.maxHeaders,
    jsonDepth: flags.maxJsonDepth,
    connections: flags.maxConnections,
    connectionsPerAddress: flags.maxConnectionsPerAddress,
    requestsPerConnection: flags.maxRequestsPerConnection,
  };
}

export function httpTimeouts(flags: Flags): HttpTimeouts {
  return {
    headersMs: inMs(flags.headersTimeout),
    requestMs: inMs(flags.requestTimeout),
    keepAliveMs: inMs(flags.keepAliveTimeout),
    stallMs: inMs(flags.readerTimeout),
  };
}
