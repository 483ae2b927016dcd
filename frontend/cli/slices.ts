// Cuts the configuration into what each process is told: no process sees more than it needs (keys
// go to frontends alone).
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type {
  Collectives,
  DetokenizerSlice,
  EngineSlice,
  FrontendSlice,
  ProcessSlice,
  WorkerSlice,
} from '../../common/config.ts';
import type { Memory } from '../../common/host-memory.ts';
import { rankTokens } from '../../common/rank-tokens.ts';
import { firstInheritedFd } from '../../common/process.ts';
import type { ChildId } from '../supervisor/child.ts';
import type { Endpoints } from '../supervisor/endpoints.ts';
import type { Nodes } from '../supervisor/nodes.ts';
import type { RunDir } from '../supervisor/run-dir.ts';
import type { Generations } from '../supervisor/plan.ts';
import { isLoopback, type Config } from './config.ts';
import { httpLimits, httpTimeouts, readerLimits, requestLimits, textLimits } from './limits.ts';
import { rankAddress } from './nodes.ts';

/** A folder that the operator names may hold what a server that was killed left. */
const boot = randomBytes(4).toString('hex');

export interface SliceContext {
  readonly config: Config;
  readonly endpoints: Endpoints;
  readonly runDir: RunDir;
  readonly generations: Generations;
  /** By node rank: of its host, the same for all ranks of a generation. */
  readonly hostMemory: readonly ((generation: number) => Memory)[];
  /** null where all ranks are on this host. */
  readonly network: Network | null;
}

/** The hosts of a server that runs on several. */
export interface Network {
  readonly nodes: Nodes;
  /** Of the head, numeric. */
  readonly host: string;
  /** From which the tokens of ranks are made. */
  readonly secret: string;
}

type Slice = EngineSlice | WorkerSlice | DetokenizerSlice | FrontendSlice;

export function makeSlice(id: ChildId, context: SliceContext): Slice {
  const common: ProcessSlice = {
    runDir: context.runDir.path,
    generation: id.generation,
    logLevel: context.config.logLevel,
    logFormat: context.config.flags.logFormat,
  };
  switch (id.role) {
    case 'engine':
      return { ...common, ...engineSlice(id, context) };
    case 'worker':
      return { ...common, ...workerSlice(id, context) };
    case 'detokenizer':
      return { ...common, ...detokenizerSlice(id, context) };
    case 'frontend':
      return { ...common, ...frontendSlice(context) };
  }
}

type Own<T extends ProcessSlice> = Omit<T, keyof ProcessSlice>;

function engineSlice(id: ChildId, { config, endpoints, generations }: SliceContext) {
  const { flags, model } = config;
  return {
    fitModelLen: config.fitModelLen,
    scheduler: {
      maxNumSeqs: config.maxNumSeqs,
      maxNumBatchedTokens: config.maxNumBatchedTokens,
      maxModelLen: config.maxModelLen,
      schedulingPolicy: flags.schedulingPolicy,
      asyncDepth: config.asyncDepth.most,
      blockSize: flags.blockSize,
      slidingWindow: model.slidingWindow,
      enablePrefixCaching: flags.enablePrefixCaching,
      prefixCachingSeed: flags.prefixCachingSeed,
      maxQueuedRequests: flags.maxQueuedRequests,
      maxQueuedTokens: flags.maxQueuedTokens,
    },
    leastAsyncDepth: config.asyncDepth.least,
    model: {
      name: config.names[0]!,
      vocabSize: model.vocabSize,
      eosTokenIds: model.eosTokenIds,
    },
    maxLogprobs: config.maxLogprobs,
    limits: requestLimits(flags),
    numWorkers: flags.tensorParallelSize,
    frontendListen: endpoints.engineFrontend(id.generation),
    workerListen: endpoints.engineWorker(id.generation),
    detokenizerAddress: endpoints.detokenizerEngine(generations.of('detokenizer', 0)).address,
    stepTimeoutMs: Math.round(flags.stepTimeout * 1000),
    disableLogStats: flags.disableLogStats,
    enableDebugTimeline: flags.enableDebugTimeline,
    defaultSeed: flags.seed,
    defaultSampling: config.defaultSampling,
  } satisfies Own<EngineSlice>;
}

/** How the rank meets the others. All have one generation: they are replaced together. */
function collectives(id: ChildId, { config, runDir, network }: SliceContext): Collectives | null {
  const { flags } = config;
  const numRanks = flags.tensorParallelSize;
  if (numRanks === 1) return null;
  const timeoutMs = Math.round(flags.collectiveTimeout * 1000);
  if (!network)
    return {
      kind: 'sharedMemory',
      path: runDir.file(`ranks.${boot}.${id.generation}`),
      timeoutMs,
    };
  const { nodes, host, secret } = network;
  const addresses = Array.from({ length: numRanks }, (_, rank) =>
    rankAddress(nodes.joinOf(rank)?.address ?? host, rank, flags),
  );
  const tokens = rankTokens(`${secret} ${id.generation}`, id.index, numRanks);
  return { kind: 'network', addresses, ...tokens, timeoutMs };
}

function workerSlice(id: ChildId, context: SliceContext) {
  const { config, endpoints, generations, network } = context;
  const { flags, model } = config;
  const numRanks = flags.tensorParallelSize;
  const engine = endpoints.engineWorker(generations.of('engine', 0));
  const node = network?.nodes.joinOf(id.index) ?? null;
  return {
    rank: id.index,
    numRanks,
    numLocalRanks: numRanks / flags.nnodes,
    hostMemory: context.hostMemory[network?.nodes.nodeOf(id.index) ?? 0]!(id.generation),
    collectives: collectives(id, context),
    engineAddress: engine.address,
    engineKey: engine.curve?.publicKey ?? null,
    model: node ? { ...model, path: node.modelPath } : model,
    device: config.device,
    loadFormat: flags.loadFormat,
    dtype: config.dtype,
    kvCacheDtype: config.kvCacheDtype,
    kvCacheMemoryBytes: flags.kvCacheMemoryBytes,
    gpuMemoryUtilization: flags.gpuMemoryUtilization,
    maxNumSeqs: config.maxNumSeqs,
    maxNumBatchedTokens: config.maxNumBatchedTokens,
    maxModelLen: config.maxModelLen,
    fitModelLen: config.fitModelLen,
    maxLogprobs: config.maxLogprobs,
    blockSize: flags.blockSize,
    asyncDepth: config.asyncDepth.most,
    numThreads: node?.numThreads ?? flags.threads,
    seed: flags.seed,
    fastMath: flags.fastMath,
    enforceEager: flags.enforceEager,
    debugSync: flags.debugSync,
  } satisfies Own<WorkerSlice>;
}

function detokenizerSlice(id: ChildId, context: SliceContext) {
  const { config, endpoints } = context;
  return {
    tokenizerPath: config.tokenizerPath,
    chatTemplatePath: chatTemplatePath(context),
    engineListen: endpoints.detokenizerEngine(id.generation),
    frontendListen: endpoints.detokenizerFrontend(id.generation),
    maxModelLen: config.maxModelLen,
    textLimits: textLimits(config.flags),
    readerLimits: readerLimits(config.flags),
  } satisfies Own<DetokenizerSlice>;
}

function frontendSlice(context: SliceContext) {
  const { config, endpoints, generations } = context;
  const { flags } = config;
  const engine = endpoints.engineFrontend(generations.of('engine', 0));
  const detokenizer = endpoints.detokenizerFrontend(generations.of('detokenizer', 0));
  return {
    engineAddress: engine.address,
    detokenizerAddress: detokenizer.address,
    engineKey: engine.curve?.publicKey ?? null,
    detokenizerKey: detokenizer.curve?.publicKey ?? null,
    tokenizerPath: config.tokenizerPath,
    chatTemplatePath: chatTemplatePath(context),
    textLimits: textLimits(flags),
    http: {
      listenFd: firstInheritedFd,
      tls:
        flags.sslKeyfile === null || flags.sslCertfile === null
          ? null
          : { keyPath: flags.sslKeyfile, certPath: flags.sslCertfile },
      servedModelNames: config.names,
      modelPath: config.model.path,
      maxModelLen: config.maxModelLen,
      apiKeys: config.apiKeys,
      allowedOrigins: flags.allowedOrigins,
      loopbackOnly: flags.uds === null && isLoopback(config.host),
      rootPath: flags.rootPath ?? '',
      strictApi: flags.strictApi,
      maxLogprobs: config.maxLogprobs,
      limits: httpLimits(flags),
      timeouts: httpTimeouts(flags),
      streamInterval: flags.streamInterval,
      priorityScheduling: flags.schedulingPolicy === 'priority',
      maxQueuedRequests: flags.maxQueuedRequests,
      maxQueuedTokens: flags.maxQueuedTokens,
      enablePromptTokensDetails: flags.enablePromptTokensDetails,
      forceIncludeUsage: flags.enableForceIncludeUsage,
      enableLogRequests: flags.enableLogRequests,
      enableDebugTimeline: flags.enableDebugTimeline,
      // Spelled as vLLM's are, which are Python's.
      cacheLabels: {
        cache_dtype: flags.kvCacheDtype,
        enable_prefix_caching: flags.enablePrefixCaching ? 'True' : 'False',
        gpu_memory_utilization: String(flags.gpuMemoryUtilization),
        prefix_caching_hash_algo: 'sha256_cbor',
      },
      defaultSampling: config.defaultSampling,
    },
  } satisfies Own<FrontendSlice>;
}

/** A template given as text on the command line becomes a file in the run directory. */
function chatTemplatePath({ config, runDir }: SliceContext): string | null {
  const { chatTemplate } = config;
  if (chatTemplate === null) return null;
  if ('path' in chatTemplate) return chatTemplate.path;
  const name = 'chat-template.jinja';
  runDir.write(name, chatTemplate.text);
  return join(runDir.path, name);
}
