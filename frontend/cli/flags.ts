// Every flag of `vllm-ts serve`: name, type, default, help. The names and defaults are vLLM's where
// vLLM has the flag. The command line, its help and the type of the parsed values come from here.
import { defaultHttpLimits as limits } from '../../common/limits.ts';
import {
  parseChoice,
  parseInteger,
  parseJsonObject,
  parseJsonTexts,
  parseSeconds,
  parseShare,
} from './values.ts';

export interface Flag<T> {
  readonly name: string;
  /** How its value is shown in help; null = a switch, with a `--no-` form. */
  readonly value: string | null;
  readonly default: T;
  readonly help: string;
  /** `previous` is the value so far, where several may be given. */
  parse(text: string, previous: unknown): T;
}

const integer = (name: string, initial: number, min: number, max: number, help: string) =>
  ({
    name,
    value: '<n>',
    default: initial,
    help,
    parse: (text) => parseInteger(text, min, max),
  }) satisfies Flag<number>;

const optionalInteger = (
  name: string,
  min: number,
  max: number,
  help: string,
): Flag<number | null> => ({
  name,
  value: '<n>',
  default: null,
  help,
  parse: (text) => parseInteger(text, min, max),
});

const seconds = (name: string, initial: number, help: string): Flag<number> => ({
  name,
  value: '<seconds>',
  default: initial,
  help,
  parse: parseSeconds,
});

const text = (name: string, value: string, help: string): Flag<string | null> => ({
  name,
  value,
  default: null,
  help,
  parse: (given) => given,
});

const texts = (name: string, value: string, help: string): Flag<readonly string[]> => ({
  name,
  value,
  default: [],
  help,
  parse: (given, previous) => [...(isGiven(previous) ? previous : []), given],
});

/** commander hands the default on as the first `previous`: an empty list, never changed. */
const isGiven = (previous: unknown): previous is readonly string[] => Array.isArray(previous);

function choice<const T extends string>(
  name: string,
  choices: readonly T[],
  initial: NoInfer<T>,
  help: string,
): Flag<T> {
  return {
    name,
    value: `<${choices.join('|')}>`,
    default: initial,
    help,
    parse: (given) => parseChoice(given, choices),
  };
}

const onOff = (name: string, initial: boolean, help: string): Flag<boolean> => ({
  name,
  value: null,
  default: initial,
  help,
  parse: (given) => given === 'true',
});

const maxInt = 2 ** 31 - 1;

export const flags = {
  // Model
  servedModelName: texts(
    '--served-model-name',
    '<names...>',
    'model ids in the API; the first is the one in answers (default: MODEL as given)',
  ),
  tokenizer: text('--tokenizer', '<folder>', 'folder with tokenizer.json, if it is not the model'),
  chatTemplate: text(
    '--chat-template',
    '<file or template>',
    "chat template instead of the model's own",
  ),
  maxModelLen: optionalInteger(
    '--max-model-len',
    1,
    maxInt,
    "context length in tokens (default: the model's)",
  ),
  dtype: choice(
    '--dtype',
    ['auto', 'half', 'float16', 'bfloat16', 'float', 'float32'],
    'auto',
    "type of weights and activations; auto: the model's on cuda (bfloat16 for float32), float32 activations on cpu",
  ),
  loadFormat: choice(
    '--load-format',
    ['auto', 'safetensors', 'dummy'],
    'auto',
    'dummy: random weights',
  ),
  seed: integer('--seed', 0, 0, maxInt, 'seed of everything random that has none of its own'),
  generationConfig: text(
    '--generation-config',
    '<auto|vllm|folder>',
    "where sampling defaults come from: the model's generation_config.json (auto), nowhere (vllm), another folder",
  ),
  overrideGenerationConfig: {
    name: '--override-generation-config',
    value: '<json>',
    default: {},
    help: 'sampling defaults that win, such as \'{"temperature": 0.7}\'',
    parse: parseJsonObject,
  },
  maxLogprobs: integer('--max-logprobs', 20, 0, 20, 'most logprobs that a request may ask for'),

  // Scheduling
  maxNumSeqs: optionalInteger(
    '--max-num-seqs',
    1,
    4096,
    'requests that run at once (default: 256; 1024 on a GPU of 70 GiB or more)',
  ),
  maxNumBatchedTokens: optionalInteger(
    '--max-num-batched-tokens',
    1,
    maxInt,
    'tokens of one step (default: 2048; 8192 on a GPU of 70 GiB or more, 16384 from 160 GiB)',
  ),
  schedulingPolicy: choice(
    '--scheduling-policy',
    ['fcfs', 'priority'],
    'fcfs',
    'order of waiting requests',
  ),
  asyncDepth: integer('--async-depth', 2, 1, 8, 'steps in flight'),
  maxQueuedRequests: integer(
    '--max-queued-requests',
    4096,
    0,
    maxInt,
    'waiting requests before new ones get 429; 0 = no bound',
  ),
  maxQueuedTokens: integer(
    '--max-queued-tokens',
    4_000_000,
    0,
    maxInt,
    'prompt tokens of waiting requests before new ones get 429; 0 = no bound',
  ),

  // KV cache
  blockSize: integer('--block-size', 16, 1, 256, 'tokens in a KV block'),
  enablePrefixCaching: onOff('--enable-prefix-caching', true, 'reuse KV blocks of equal prefixes'),
  prefixCachingSeed: text(
    '--prefix-caching-seed',
    '<text>',
    'fixes the root of block hashes (default: random at each start)',
  ),
  kvCacheMemoryBytes: optionalInteger(
    '--kv-cache-memory-bytes',
    1,
    Number.MAX_SAFE_INTEGER,
    'bytes for the KV cache (default on cuda: what --gpu-memory-utilization leaves; on cpu: the smallest of 4 GiB, 40 % of free memory and what max-num-seqs x max-model-len needs)',
  ),
  gpuMemoryUtilization: {
    name: '--gpu-memory-utilization',
    value: '<share>',
    default: 0.92,
    help: 'share of the whole GPU that this server may take, unless --kv-cache-memory-bytes says it',
    parse: parseShare,
  },
  kvCacheDtype: choice(
    '--kv-cache-dtype',
    ['auto', 'float16', 'bfloat16', 'float32'],
    'auto',
    'type of keys and values; auto: that of activations',
  ),

  // Device
  device: choice(
    '--device',
    ['auto', 'cpu', 'cuda', 'reference'],
    'auto',
    'what runs the model; auto: cuda where there is a GPU, else cpu',
  ),
  tensorParallelSize: integer(
    '--tensor-parallel-size',
    1,
    1,
    256,
    'workers (ranks) that run one model together, each its part of it; -tp is short for it',
  ),
  threads: integer(
    '--threads',
    0,
    0,
    1024,
    "threads of the cpu backend, of each rank; 0 = the rank's share of the physical cores that this process may use",
  ),
  fastMath: onOff(
    '--fast-math',
    false,
    'give up equal tokens in any batch where that is faster (cuda)',
  ),
  debugSync: onOff('--debug-sync', false, 'run op by op, so that an error names its op'),
  stepTimeout: seconds('--step-timeout', 60, 'a step that stands still for so long is hung'),
  collectiveTimeout: seconds(
    '--collective-timeout',
    2,
    'a rank is lost if it stands still for so long while other ranks wait for it',
  ),

  // HTTP
  host: text('--host', '<address>', 'address to listen on (default: 127.0.0.1)'),
  port: integer('--port', 8000, 0, 65535, 'port to listen on; 0 = any free one'),
  uds: text('--uds', '<path>', 'unix socket to listen on instead of host and port'),
  apiKey: texts(
    '--api-key',
    '<keys...>',
    'keys, one of which every request must bring (also VLLM_API_KEY)',
  ),
  sslKeyfile: text('--ssl-keyfile', '<file>', 'TLS private key (PEM)'),
  sslCertfile: text('--ssl-certfile', '<file>', 'TLS certificate chain (PEM)'),
  rootPath: text('--root-path', '<path>', 'path prefix under which a proxy serves this'),
  allowedOrigins: {
    name: '--allowed-origins',
    value: '<json>',
    default: [],
    help: 'origins that browsers may call from, such as \'["*"]\' (default: loopback only)',
    parse: parseJsonTexts,
  },
  streamInterval: integer(
    '--stream-interval',
    1,
    1,
    1_000_000,
    'tokens in a streamed chunk, at least',
  ),
  strictApi: onOff('--strict-api', false, 'refuse request fields that are not known'),
  enablePromptTokensDetails: onOff(
    '--enable-prompt-tokens-details',
    false,
    'usage says how many prompt tokens were found in the prefix cache',
  ),
  enableForceIncludeUsage: onOff(
    '--enable-force-include-usage',
    false,
    'every stream ends with usage, asked for or not',
  ),
  enableDebugTimeline: onOff(
    '--enable-debug-timeline',
    false,
    'GET /debug/timeline: the last steps as a Chrome trace',
  ),

  // Limits of requests and connections
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

  // Server
  shutdownTimeout: seconds('--shutdown-timeout', 30, 'what requests get to end after SIGTERM'),
  frontendAddress: text(
    '--frontend-address',
    '<folder or tcp://host:port>',
    "run directory, or TCP address with CURVE keys, at which other programs' frontends attach",
  ),
  headless: onOff(
    '--headless',
    false,
    'no HTTP server: frontends attach through --frontend-address',
  ),
  logFormat: choice('--log-format', ['text', 'json'], 'text', 'form of log lines on stderr'),
  enableLogRequests: onOff(
    '--enable-log-requests',
    false,
    'log each request (never prompts or keys)',
  ),
  disableLogStats: onOff('--disable-log-stats', false, 'no stats line every 10 s'),
} as const satisfies Record<string, Flag<unknown>>;

export type Flags = {
  readonly [K in keyof typeof flags]: (typeof flags)[K] extends Flag<infer T> ? T : never;
};

/** Flags of vLLM that are not built here yet: refused by name. */
export const notBuilt: ReadonlySet<string> = new Set(
  `--pipeline-parallel-size -pp --data-parallel-size -dp
  --decode-context-parallel-size -dcp --prefill-context-parallel-size -pcp --enable-expert-parallel
  --quantization -q --enable-lora --max-loras --max-lora-rank
  --lora-modules --speculative-config --enable-auto-tool-choice --tool-call-parser
  --reasoning-parser --api-server-count --kv-transfer-config --kv-events-config
  --kv-offloading-size --kv-offloading-backend --enforce-eager --compilation-config -O
  --distributed-executor-backend --nnodes --node-rank --master-addr --master-port
  --enable-chunked-prefill --no-enable-chunked-prefill --async-scheduling --no-async-scheduling
  --prefix-caching-hash-algo --long-prefill-token-threshold --logprobs-mode --tokenizer-mode
  --trust-remote-code --revision --download-dir --hf-overrides --task --runner --config
  --allow-credentials --allowed-methods --allowed-headers --response-role --swap-space
  --cpu-offload-gb --limit-mm-per-prompt --structured-outputs-config --max-num-partial-prefills
  --otlp-traces-endpoint --enable-server-load-tracking
  --uvicorn-log-level --disable-uvicorn-access-log --ssl-ca-certs --ssl-cert-reqs --middleware
  --enable-sleep-mode --model-impl --chat-template-content-format --return-tokens-as-token-ids`.split(
    /\s+/,
  ),
);
