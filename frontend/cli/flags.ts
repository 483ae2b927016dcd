// Every flag of `vllm-ts serve`: name, type, default, help. The names and defaults are vLLM's where
// vLLM has the flag. The command line, its help and the type of the parsed values come from here.
import {
  choice,
  integer,
  integerOrAuto,
  maxInt,
  onOff,
  optionalInteger,
  seconds,
  someSeconds,
  text,
  texts,
  type Flag,
} from './flag.ts';
import { limitFlags } from './limit-flags.ts';
import { parseHost, parseJsonObject, parseJsonTexts, parseShare } from './values.ts';

export const flags = {
  // Model
  servedModelName: texts(
    '--served-model-name',
    '<names...>',
    'model ids in the API; the first is the one in answers (default: MODEL, which comes before this flag)',
  ),
  tokenizer: text('--tokenizer', '<folder>', 'folder with tokenizer.json, if it is not the model'),
  chatTemplate: text(
    '--chat-template',
    '<file or template>',
    "chat template instead of the model's own",
  ),
  maxModelLen: integerOrAuto(
    '--max-model-len',
    1,
    maxInt,
    "context length in tokens (default: the model's); auto or -1: the model's, or what the KV cache holds if that is less",
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
  maxLogprobs: integer(
    '--max-logprobs',
    20,
    -1,
    maxInt,
    'most logprobs that a request may ask for; -1: the whole vocabulary',
  ),

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
  asyncDepth: integerOrAuto(
    '--async-depth',
    1,
    8,
    'steps in flight (default auto: 2, and up to 8 short ones on a host that lets the device wait)',
  ),
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
    'bytes for the KV cache (default on cuda: what --gpu-memory-utilization leaves; on cpu: the smallest of 4 GiB, 40 % of the memory that weights leave and what max-num-seqs x max-model-len needs)',
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
    'on cuda: linears without a tuned algorithm as cuBLASLt likes, and sums of more than two ranks by NCCL; tokens may then depend on what else is in the batch',
  ),
  enforceEager: onOff('--enforce-eager', false, 'on cuda: no CUDA graphs; slower'),
  debugSync: onOff(
    '--debug-sync',
    false,
    'run op by op, each awaited, so that an error names its op',
  ),
  stepTimeout: someSeconds('--step-timeout', 60, 'a step that stands still for so long is hung'),
  collectiveTimeout: someSeconds(
    '--collective-timeout',
    2,
    'a rank is lost if it stands still for so long while other ranks wait for it',
  ),

  // Several hosts
  nnodes: integer('--nnodes', 1, 1, 256, 'hosts over which the ranks are spread evenly'),
  nodeRank: integer(
    '--node-rank',
    0,
    0,
    255,
    'this host among --nnodes; 0 is the head, which serves; the others run their ranks alone',
  ),
  masterAddr: {
    ...text('--master-addr', '<host>', 'host of the head, where it waits for the other nodes'),
    parse: parseHost,
  },
  masterPort: integer(
    '--master-port',
    29_501,
    1,
    65_535,
    'first of the ports between nodes: nodes, engine, then one for each rank',
  ),
  nodeKeyFile: text(
    '--node-key-file',
    '<file>',
    'secret that all nodes share (also VLLM_TS_NODE_KEY)',
  ),
  nodeTimeout: seconds(
    '--node-timeout',
    600,
    'what nodes wait for each other, at the start and when one is lost',
  ),

  // HTTP
  host: text('--host', '<address>', 'address to listen on (default: 127.0.0.1)'),
  port: integer('--port', 8000, 0, 65535, 'port to listen on; 0 = any free one'),
  uds: text('--uds', '<path>', 'unix socket to listen on instead of host and port'),
  apiKey: texts(
    '--api-key',
    '<keys...>',
    'keys, one of which every request must bring (also VLLM_API_KEY); MODEL comes before this flag',
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

  ...limitFlags,

  // Server
  shutdownTimeout: seconds('--shutdown-timeout', 30, 'what requests get to end after SIGTERM'),
  livenessTimeout: seconds(
    '--liveness-timeout',
    30,
    'a process that says nothing for so long, busy or idle, is replaced (the engine: the server ends); 0 = never',
  ),
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
