// Bounds of what one request and one client may take, before anything is allocated for them. Each
// is raised (or lowered) by a flag; the engine and the detokenizer check their parts again, because
// a frontend may be anybody's.

/** Checked by HTTP and by the engine. */
export interface RequestLimits {
  /** Choices of a prompt. */
  readonly n: number;
  /** Stop strings, and the UTF-8 bytes of each. */
  readonly stop: number;
  readonly stopBytes: number;
  readonly stopTokenIds: number;
  /** Entries of logit_bias. */
  readonly logitBias: number;
  /** Each is at most two runs of ids (at the start of the text, after a space) of badWordTokens. */
  readonly badWords: number;
  readonly badWordTokens: number;
  readonly cacheSaltBytes: number;
}

/** Checked by whoever turns text into tokens and back: frontends and, for strangers, the detokenizer. */
export interface TextLimits {
  /** Of a conversation. */
  readonly messages: number;
  /** What a chat template may write, and the nodes that it may evaluate (and 2,000 a message). */
  readonly templateCharacters: number;
  readonly templateSteps: number;
  /** chat_template_kwargs: values in all, and characters of the texts among them. */
  readonly templateArgs: number;
  readonly templateArgCharacters: number;
  /** Token ids that one call turns into text. */
  readonly decodeIds: number;
  /** For one call that is large enough to have a thread. */
  readonly callMs: number;
}

/** Checked by the detokenizer for every reader of a stream. */
export interface ReaderLimits {
  /** Of one request, for want of credit. */
  readonly pendingBytes: number;
  readonly stallMs: number;
}

/**
 * Logprob entries of one step, over all its tokens: 12 bytes each, so that a step's outputs stay
 * below the largest body of a message. --max-logprobs is held to it.
 */
export const maxStepLogprobs = 16 * 2 ** 20;

/** Logprob entries of one request that go out in one row: those of its prompt, and all if not streamed. */
export const maxRowLogprobs = 4 * 2 ** 20;

/** Alternatives that the sampler lists on cuda (VT_CUDA_MAX_LOGPROBS). */
export const maxLogprobsOnCuda = 128;

export interface HttpLimits extends RequestLimits {
  /** Prompts of a completions request times n. */
  readonly choices: number;
  /** UTF-8 bytes of one of bad_words. */
  readonly badWordBytes: number;
  readonly messages: number;
  readonly decodeIds: number;
  readonly bodyBytes: number;
  readonly headerBytes: number;
  readonly headers: number;
  readonly jsonDepth: number;
  /** Open at once: in all, and from one address (IPv6: one /64). 0 = no bound. */
  readonly connections: number;
  readonly connectionsPerAddress: number;
  /** After so many requests a connection is closed. 0 = never. */
  readonly requestsPerConnection: number;
}

/** What a client may take for its part, so that a slow one does not keep a connection for ever. */
export interface HttpTimeouts {
  /** The TLS handshake, and the headers. */
  readonly headersMs: number;
  /** The whole request, from its first byte to the last of its body. */
  readonly requestMs: number;
  /** Between an answer and the next request. */
  readonly keepAliveMs: number;
  /** How long an answer may wait for a client that takes nothing of it. */
  readonly stallMs: number;
}

export const defaultRequestLimits: RequestLimits = {
  n: 128,
  stop: 16,
  stopBytes: 256,
  stopTokenIds: 1024,
  logitBias: 1024,
  badWords: 128,
  badWordTokens: 64,
  cacheSaltBytes: 256,
};

export const defaultTextLimits: TextLimits = {
  messages: 4096,
  templateCharacters: 4 * 1024 * 1024,
  templateSteps: 50_000,
  templateArgs: 1024,
  templateArgCharacters: 65_536,
  decodeIds: 1024 * 1024,
  callMs: 30_000,
};

export const defaultReaderLimits: ReaderLimits = {
  pendingBytes: 256 * 1024,
  stallMs: 30_000,
};

export const defaultHttpLimits: HttpLimits = {
  ...defaultRequestLimits,
  choices: 1024,
  badWordBytes: 256,
  messages: defaultTextLimits.messages,
  decodeIds: defaultTextLimits.decodeIds,
  bodyBytes: 4 * 1024 * 1024,
  headerBytes: 32 * 1024,
  headers: 100,
  jsonDepth: 64,
  connections: 16_384,
  connectionsPerAddress: 4096,
  requestsPerConnection: 10_000,
};

export const defaultHttpTimeouts: HttpTimeouts = {
  headersMs: 10_000,
  requestMs: 30_000,
  keepAliveMs: 75_000,
  stallMs: defaultReaderLimits.stallMs,
};
