// Bounds of what one request and one client may take, before anything is allocated for them. Each
// is raised (or lowered) by a flag; the engine checks its part again, because a frontend may be
// anybody's.

/** Checked by HTTP and by the engine. */
export interface RequestLimits {
  /** Choices of a prompt. */
  readonly n: number;
  /** Stop strings, and the UTF-8 bytes of each. */
  readonly stop: number;
  readonly stopBytes: number;
  /** Entries of logit_bias. */
  readonly logitBias: number;
}

export interface HttpLimits extends RequestLimits {
  /** Prompts of a completions request times n. */
  readonly choices: number;
  readonly bodyBytes: number;
  readonly headerBytes: number;
  readonly jsonDepth: number;
  /** Open at once: in all, and from one address (IPv6: one /64). 0 = no bound. */
  readonly connections: number;
  readonly connectionsPerAddress: number;
  /** After so many requests a connection is closed. 0 = never. */
  readonly requestsPerConnection: number;
}

export const defaultHttpLimits: HttpLimits = {
  n: 128,
  stop: 16,
  stopBytes: 256,
  logitBias: 1024,
  choices: 1024,
  bodyBytes: 4 * 1024 * 1024,
  headerBytes: 32 * 1024,
  jsonDepth: 64,
  connections: 16_384,
  connectionsPerAddress: 4096,
  requestsPerConnection: 10_000,
};

export const defaultRequestLimits: RequestLimits = {
  n: defaultHttpLimits.n,
  stop: defaultHttpLimits.stop,
  stopBytes: defaultHttpLimits.stopBytes,
  logitBias: defaultHttpLimits.logitBias,
};
