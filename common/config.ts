// The configuration as processes see it. The command line becomes one Config (frontend/cli), parsed
// once and frozen; each process receives its slice in the supervisor's `config` message. What is
// learned at start (number of blocks, addresses) is a message, never a write.
import type { Memory } from './host-memory.ts';
import type {
  HttpLimits,
  HttpTimeouts,
  ReaderLimits,
  RequestLimits,
  TextLimits,
} from './limits.ts';
import type { RankTokens } from './rank-tokens.ts';
import type { DefaultSampling } from './sampling-params.ts';
import type { CurveKeys } from './wire/transport.ts';

/** What config.json and generation_config.json say, checked; see worker/models and common/model. */
export interface ModelConfig {
  /** Folder of the model. */
  readonly path: string;
  /** Entry of `architectures`, e.g. LlamaForCausalLM. */
  readonly architecture: string;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
  readonly tieWordEmbeddings: boolean;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  /** 0 = full attention. */
  readonly slidingWindow: number;
  readonly maxPositionEmbeddings: number;
  /** The checkpoint's dtype. */
  readonly dtype: 'f32' | 'f16' | 'bf16';
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
}

export interface RopeScaling {
  readonly type: 'linear' | 'dynamic' | 'llama3' | 'yarn';
  readonly factor: number;
  readonly originalMaxPositionEmbeddings: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  /** yarn: rotations within the original context above which a wave is kept, below which stretched. */
  readonly betaFast: number;
  readonly betaSlow: number;
  /** Factor of cosines and sines; 1 but for yarn. */
  readonly attentionFactor: number;
}

export interface SchedulerConfig {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  /** Prompt and output of a request; see fitModelLen. */
  readonly maxModelLen: number;
  readonly schedulingPolicy: 'fcfs' | 'priority';
  /** Most steps that may be in flight, 1..8. */
  readonly asyncDepth: number;
  readonly blockSize: number;
  /** Positions that attention looks back, its own included; 0 = all. */
  readonly slidingWindow: number;
  readonly enablePrefixCaching: boolean;
  /** Fixes the root of the block hashes; null = random per boot. */
  readonly prefixCachingSeed: string | null;
  /** Bounds of the waiting queue; 0 = no bound. */
  readonly maxQueuedRequests: number;
  readonly maxQueuedTokens: number;
}

/** Common to every process's slice. */
export interface ProcessSlice {
  /** Run directory (0700). */
  readonly runDir: string;
  readonly generation: number;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly logFormat: 'text' | 'json';
}

export interface Listen {
  readonly address: string;
  readonly curve: CurveKeys | null;
}

export interface EngineSlice extends ProcessSlice {
  readonly scheduler: SchedulerConfig;
  /** Steps that may be in flight where the device does not wait for its host, 1..asyncDepth. */
  readonly leastAsyncDepth: number;
  /** The KV cache bounds maxModelLen too, once its size is known. */
  readonly fitModelLen: boolean;
  readonly model: Pick<ModelConfig, 'vocabSize' | 'eosTokenIds'> & { readonly name: string };
  readonly maxLogprobs: number;
  readonly limits: RequestLimits;
  readonly numWorkers: number;
  readonly frontendListen: Listen;
  readonly workerListen: Listen;
  /** Where the detokenizer binds for the engine. */
  readonly detokenizerAddress: string;
  readonly stepTimeoutMs: number;
  readonly disableLogStats: boolean;
  readonly enableDebugTimeline: boolean;
  readonly defaultSeed: number;
  /** Shown to frontends in their welcome. */
  readonly defaultSampling: DefaultSampling;
}

/** How the ranks of one model exchange what they compute: in memory of one host, or over TCP. */
export type Collectives = {
  /** A rank that others wait for is lost if it runs no op for so long. */
  readonly timeoutMs: number;
} & (
  | {
      readonly kind: 'sharedMemory';
      /** In the run directory; rank 0 makes it. */
      readonly path: string;
    }
  | ({
      readonly kind: 'network';
      /** host:port of each rank. */
      readonly addresses: readonly string[];
    } & RankTokens)
);

export interface WorkerSlice extends ProcessSlice {
  readonly rank: number;
  readonly numRanks: number;
  /** On the same host, this one among them. */
  readonly numLocalRanks: number;
  /** Before any rank of this generation packed its weights. */
  readonly hostMemory: Memory;
  /** null where one rank runs the whole model. */
  readonly collectives: Collectives | null;
  readonly engineAddress: string;
  /** CURVE public key of the engine where the link is tcp, null for ipc. */
  readonly engineKey: string | null;
  readonly model: ModelConfig;
  readonly device: 'reference' | 'cpu' | 'cuda';
  readonly loadFormat: 'auto' | 'safetensors' | 'dummy';
  readonly dtype: 'auto' | 'f32' | 'f16' | 'bf16';
  readonly kvCacheDtype: 'auto' | 'f32' | 'f16' | 'bf16';
  /** null = decided by the worker (see --kv-cache-memory-bytes). */
  readonly kvCacheMemoryBytes: number | null;
  /** Share of the whole GPU that the worker may take; (0, 1]. */
  readonly gpuMemoryUtilization: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxModelLen: number;
  /** A KV cache that holds less than a request of maxModelLen is not too small. */
  readonly fitModelLen: boolean;
  readonly maxLogprobs: number;
  readonly blockSize: number;
  readonly asyncDepth: number;
  /** 0 = decided by the worker: physical cores of the affinity mask within the cgroup's quota. */
  readonly numThreads: number;
  readonly seed: number;
  readonly fastMath: boolean;
  readonly enforceEager: boolean;
  readonly debugSync: boolean;
}

export interface DetokenizerSlice extends ProcessSlice {
  /** Folder with tokenizer.json and its companions. */
  readonly tokenizerPath: string;
  readonly chatTemplatePath: string | null;
  readonly engineListen: Listen;
  readonly frontendListen: Listen;
  readonly maxModelLen: number;
  readonly textLimits: TextLimits;
  readonly readerLimits: ReaderLimits;
}

/** frontend.json in the run directory (mode 0600): all that a foreign frontend needs to attach. */
export interface FrontendJson {
  readonly protocol: number;
  readonly engine: string;
  readonly detokenizer: string;
  readonly token: string;
  /** Public keys of both servers for tcp, null for ipc; a client makes its own pair. */
  readonly engineKey: string | null;
  readonly detokenizerKey: string | null;
  readonly model: string;
}

/** What the HTTP server needs to know. `listenFd` was bound by the supervisor. */
export interface HttpConfig {
  readonly listenFd: number;
  readonly tls: { readonly keyPath: string; readonly certPath: string } | null;
  /** The first is the id in answers. */
  readonly servedModelNames: readonly string[];
  readonly modelPath: string;
  readonly maxModelLen: number;
  /** Empty = no key needed. */
  readonly apiKeys: readonly string[];
  /** ['*'], or origins; empty = loopback origins only. */
  readonly allowedOrigins: readonly string[];
  /** Host headers other than loopback names are refused (loopback bind). */
  readonly loopbackOnly: boolean;
  readonly rootPath: string;
  readonly strictApi: boolean;
  readonly maxLogprobs: number;
  readonly limits: HttpLimits;
  readonly timeouts: HttpTimeouts;
  readonly streamInterval: number;
  readonly priorityScheduling: boolean;
  /** What may wait in the engine's queue; 0 = no bound. */
  readonly maxQueuedRequests: number;
  readonly maxQueuedTokens: number;
  /** usage.prompt_tokens_details.cached_tokens in answers. */
  readonly enablePromptTokensDetails: boolean;
  /** Every stream ends with usage, asked for or not. */
  readonly forceIncludeUsage: boolean;
  readonly enableLogRequests: boolean;
  readonly enableDebugTimeline: boolean;
  /** Labels of vllm:cache_config_info that come from flags. */
  readonly cacheLabels: Readonly<Record<string, string>>;
  /** From generation_config.json (--generation-config, --override-generation-config). */
  readonly defaultSampling: DefaultSampling;
}

export interface FrontendSlice extends ProcessSlice {
  readonly engineAddress: string;
  readonly detokenizerAddress: string;
  /** CURVE public keys of both servers where the links are tcp, null for ipc. */
  readonly engineKey: string | null;
  readonly detokenizerKey: string | null;
  readonly tokenizerPath: string;
  readonly chatTemplatePath: string | null;
  readonly textLimits: TextLimits;
  readonly http: HttpConfig;
}
