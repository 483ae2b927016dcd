// From flags to the configuration: built once, frozen. What it says of the model is read from the
// model's folder here, so that a bad model ends the start before anything is spawned.
import { existsSync, readFileSync } from 'node:fs';
import type { ModelConfig, ProcessSlice, WorkerSlice } from '../../common/config.ts';
import type { CudaAnswer } from '../../common/cuda-device.ts';
import { exitCodes, StartError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { readModelConfig } from '../../common/model-config.ts';
import { tokenizerEosId } from '../../common/text/eos-token.ts';
import { whyNotSplit } from '../../common/tensor-parallel.ts';
import type { DefaultSampling } from '../../common/sampling-params.ts';
import type { Flags } from './flags.ts';
import { chooseMaxLogprobs } from './max-logprobs.ts';
import { checkNodes } from './nodes.ts';
import { checkTokenizer, chooseModel, readChatTemplate, readDefaultSampling } from './model.ts';
import type { ServeCommand } from './parse.ts';

export interface Config {
  readonly flags: Flags;
  readonly model: ModelConfig;
  /** Ids in the API; the first is the one in answers. */
  readonly names: readonly string[];
  /** With fitModelLen: at most. */
  readonly maxModelLen: number;
  /** What the KV cache holds bounds the length too; else it is too small. */
  readonly fitModelLen: boolean;
  readonly tokenizerPath: string;
  readonly chatTemplate: { path: string } | { text: string } | null;
  readonly defaultSampling: DefaultSampling;
  readonly device: WorkerSlice['device'];
  /** Why --device auto is not cuda; null where it is, or nobody asked. */
  readonly noCudaReason: string | null;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  /** Steps in flight: where the device does not wait for its host, and at most. */
  readonly asyncDepth: { readonly least: number; readonly most: number };
  /** The vocabulary at most. */
  readonly maxLogprobs: number;
  readonly dtype: WorkerSlice['dtype'];
  readonly kvCacheDtype: WorkerSlice['kvCacheDtype'];
  readonly host: string;
  readonly apiKeys: readonly string[];
  readonly logLevel: ProcessSlice['logLevel'];
}

const dtypes = {
  auto: 'auto',
  half: 'f16',
  float16: 'f16',
  bfloat16: 'bf16',
  float: 'f32',
  float32: 'f32',
} as const;

const logLevels: Readonly<Record<string, ProcessSlice['logLevel']>> = {
  DEBUG: 'debug',
  INFO: 'info',
  WARNING: 'warn',
  ERROR: 'error',
};

/** `cuda` is the answer to whether there is a GPU; null where the device of the flags needs none. */
export function makeConfig(
  { model, flags }: ServeCommand,
  env: NodeJS.ProcessEnv,
  cuda: CudaAnswer | null,
): Config {
  const device = chooseDevice(flags, cuda);
  checkTogether(flags, device);
  checkNodes(flags, device);
  const { path, name } = chooseModel(model, flags);
  const tokenizerPath = flags.tokenizer ?? path;
  const ownConfig = readModelConfig(path);
  checkRanks(flags, device, ownConfig);
  checkTokenizer(tokenizerPath);
  const modelConfig = withTokenizerEos(ownConfig, tokenizerPath);
  const fitModelLen = flags.maxModelLen === 'auto';
  const maxModelLen =
    typeof flags.maxModelLen === 'number' ? flags.maxModelLen : modelConfig.maxPositionEmbeddings;
  if (maxModelLen > modelConfig.maxPositionEmbeddings)
    throw badFlag(
      `--max-model-len: ${maxModelLen} is more than the model's ${modelConfig.maxPositionEmbeddings}`,
    );
  const apiKeys = chooseKeys(flags, env);
  const batch = chooseBatch(flags, device === 'cuda' ? (cuda?.device?.totalBytes ?? 0) : 0);
  const { vocabSize } = modelConfig;
  return Object.freeze({
    flags,
    model: modelConfig,
    names: flags.servedModelName.length > 0 ? flags.servedModelName : [name],
    maxModelLen,
    fitModelLen,
    tokenizerPath,
    chatTemplate: readChatTemplate(flags.chatTemplate),
    defaultSampling: readDefaultSampling(flags, path),
    device,
    noCudaReason: device === 'cpu' && cuda?.device === null ? cuda.reason : null,
    ...batch,
    asyncDepth: chooseDepth(flags),
    maxLogprobs: chooseMaxLogprobs(flags.maxLogprobs, device, { ...batch, vocabSize }),
    dtype: dtypes[flags.dtype],
    kvCacheDtype: dtypes[flags.kvCacheDtype],
    host: flags.host ?? '127.0.0.1',
    apiKeys,
    logLevel: logLevels[env['VLLM_LOGGING_LEVEL'] ?? 'INFO'] ?? 'info',
  });
}

/** As in vLLM, the tokenizer's eos_token ends a text beside those of the model's own files. */
function withTokenizerEos(model: ModelConfig, tokenizerPath: string): ModelConfig {
  const id = tokenizerEosId(tokenizerPath);
  if (id === null || id >= model.vocabSize || model.eosTokenIds.includes(id)) return model;
  return { ...model, eosTokenIds: [...model.eosTokenIds, id] };
}

/** Whether the answer to "is there a GPU" matters. */
export function asksForCuda({ device }: Pick<Flags, 'device'>): boolean {
  return device === 'auto' || device === 'cuda';
}

function chooseDevice({ device }: Flags, cuda: CudaAnswer | null): WorkerSlice['device'] {
  if (device === 'auto') return cuda?.device ? 'cuda' : 'cpu';
  if (device === 'cuda' && cuda?.device === null) throw badFlag(`--device cuda: ${cuda.reason}`);
  return device;
}

/**
 * Defaults as vLLM has them, by the memory of the GPU; 0 = none. Every running request can have a
 * token in a step: a default gives way to the flag that is set.
 */
function chooseBatch(
  { maxNumSeqs, maxNumBatchedTokens }: Flags,
  gpuBytes: number,
): Pick<Config, 'maxNumSeqs' | 'maxNumBatchedTokens'> {
  const gib = gpuBytes / 2 ** 30;
  const seqs = gib >= 70 ? 1024 : 256;
  const tokens = gib >= 160 ? 16_384 : gib >= 70 ? 8192 : 2048;
  if (maxNumSeqs !== null && maxNumBatchedTokens !== null && maxNumBatchedTokens < maxNumSeqs)
    throw badFlag(
      `--max-num-batched-tokens: ${maxNumBatchedTokens} is less than --max-num-seqs ${maxNumSeqs}`,
    );
  return {
    maxNumSeqs: maxNumSeqs ?? Math.min(seqs, maxNumBatchedTokens ?? tokens),
    maxNumBatchedTokens: maxNumBatchedTokens ?? Math.max(tokens, maxNumSeqs ?? seqs),
  };
}

function chooseDepth({ asyncDepth }: Flags): Config['asyncDepth'] {
  return typeof asyncDepth === 'number'
    ? { least: asyncDepth, most: asyncDepth }
    : { least: 2, most: 8 };
}

function chooseKeys({ apiKey }: Flags, env: NodeJS.ProcessEnv): readonly string[] {
  const key = env['VLLM_API_KEY'] ?? '';
  const isFlag = apiKey.length > 0 || key === '';
  const keys = isFlag ? apiKey : [key];
  // Others could not be told from what a header may not hold, and nobody would get in.
  if (!keys.every((it) => /^[\x21-\x7e]+$/.test(it)))
    throw badFlag(
      `${isFlag ? '--api-key' : 'VLLM_API_KEY'}: a key must be of ASCII characters without spaces`,
    );
  return keys;
}

/** Flags that only make sense together, or not together. */
function checkTogether(flags: Flags, device: WorkerSlice['device']): void {
  const { sslKeyfile, sslCertfile, uds, host, headless, frontendAddress, rootPath } = flags;
  const { fastMath, blockSize, nodeRank } = flags;
  if ((sslKeyfile === null) !== (sslCertfile === null))
    throw badFlag('--ssl-keyfile and --ssl-certfile go together');
  for (const [name, file] of [
    ['--ssl-keyfile', sslKeyfile],
    ['--ssl-certfile', sslCertfile],
  ] as const)
    if (file !== null && !existsSync(file)) throw badFlag(`${name}: ${file} does not exist`);
  if (sslKeyfile !== null && sslCertfile !== null) checkTls(sslKeyfile, sslCertfile);
  if (uds !== null && host !== null) throw badFlag('--uds and --host exclude each other');
  if (headless && frontendAddress === null && nodeRank === 0)
    throw badFlag('--headless needs --frontend-address, else nobody can attach');
  if (rootPath !== null && !/^(\/[^/?#]+)+$/.test(rootPath))
    throw badFlag(`--root-path: ${rootPath} is not a path such as /llm`);
  if (fastMath && device !== 'cuda')
    throw badFlag(
      `--fast-math is not built on ${device}: every kernel gives the same tokens in any batch`,
    );
  if (device !== 'reference' && blockSize % 16 !== 0)
    throw badFlag(`--block-size: ${blockSize} is not a multiple of 16`);
}

/** A key that is none, or of another certificate, would only be found out by the frontend. */
function checkTls(keyfile: string, certfile: string): void {
  // Only servers with TLS pay for it.
  const { createSecureContext } = process.getBuiltinModule('node:tls');
  try {
    createSecureContext({ key: readFileSync(keyfile), cert: readFileSync(certfile) });
  } catch (error) {
    throw badFlag(`--ssl-keyfile and --ssl-certfile: ${(error as Error).message}`);
  }
}

function checkRanks(flags: Flags, device: Config['device'], model: ModelConfig): void {
  const { tensorParallelSize: numRanks } = flags;
  if (numRanks === 1) return;
  const name = `--tensor-parallel-size ${numRanks}`;
  if (device === 'reference')
    throw badFlag(`${name} is not built on ${device}; supported: cpu, cuda`);
  const why = whyNotSplit(model, numRanks);
  if (why !== null) throw badFlag(`${name}: ${why}`);
}

/** Says what an operator should know before the server is ready. */
export function report(config: Config, log: Logger): void {
  const { host, apiKeys, flags, defaultSampling, noCudaReason } = config;
  if (noCudaReason !== null) log.info(`running on cpu: ${noCudaReason}`);
  if (!isLoopback(host) && flags.uds === null && !flags.headless && apiKeys.length === 0)
    log.warn(`anybody who reaches ${host} can use this server: there is no --api-key`);
  if (Object.keys(defaultSampling).length > 0)
    log.info({ ...defaultSampling }, 'sampling defaults of generation_config.json and flags');
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

const badFlag = (message: string) => new StartError(exitCodes.badFlag, message);
