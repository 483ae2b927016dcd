// From flags to the configuration: built once, frozen. What it says of the model is read from the
// model's folder here, so that a bad model ends the start before anything is spawned.
import { existsSync } from 'node:fs';
import type { Logger } from '../../common/log.ts';
import type { ModelConfig, ProcessSlice, WorkerSlice } from '../../common/config.ts';
import { exitCodes, StartError } from '../../common/errors.ts';
import { readModelConfig } from '../../common/model-config.ts';
import type { DefaultSampling } from '../../common/sampling-params.ts';
import type { Flags } from './flags.ts';
import { checkTokenizer, chooseModel, readChatTemplate, readDefaultSampling } from './model.ts';
import type { ServeCommand } from './parse.ts';

export interface Config {
  readonly flags: Flags;
  readonly model: ModelConfig;
  /** Ids in the API; the first is the one in answers. */
  readonly names: readonly string[];
  readonly maxModelLen: number;
  readonly tokenizerPath: string;
  readonly chatTemplate: { path: string } | { text: string } | null;
  readonly defaultSampling: DefaultSampling;
  readonly device: WorkerSlice['device'];
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

export function makeConfig({ model, flags }: ServeCommand, env: NodeJS.ProcessEnv): Config {
  checkTogether(flags);
  const { path, name } = chooseModel(model);
  const modelConfig = readModelConfig(path);
  const tokenizerPath = flags.tokenizer ?? path;
  checkTokenizer(tokenizerPath);
  const maxModelLen = flags.maxModelLen ?? modelConfig.maxPositionEmbeddings;
  if (maxModelLen > modelConfig.maxPositionEmbeddings)
    throw badFlag(
      `--max-model-len: ${maxModelLen} is more than the model's ${modelConfig.maxPositionEmbeddings}`,
    );
  const key = env['VLLM_API_KEY'];
  return Object.freeze({
    flags,
    model: modelConfig,
    names: flags.servedModelName.length > 0 ? flags.servedModelName : [name],
    maxModelLen,
    tokenizerPath,
    chatTemplate: readChatTemplate(flags.chatTemplate),
    defaultSampling: readDefaultSampling(flags, path),
    device: flags.device === 'auto' ? 'cpu' : flags.device,
    dtype: dtypes[flags.dtype],
    kvCacheDtype: dtypes[flags.kvCacheDtype],
    host: flags.host ?? '127.0.0.1',
    apiKeys: flags.apiKey.length > 0 || key === undefined || key === '' ? flags.apiKey : [key],
    logLevel: logLevels[env['VLLM_LOGGING_LEVEL'] ?? 'INFO'] ?? 'info',
  });
}

/** Flags that only make sense together, or not together. */
function checkTogether(flags: Flags): void {
  const { sslKeyfile, sslCertfile, uds, host, headless, frontendAddress, rootPath } = flags;
  const { fastMath, device, blockSize } = flags;
  if ((sslKeyfile === null) !== (sslCertfile === null))
    throw badFlag('--ssl-keyfile and --ssl-certfile go together');
  for (const [name, file] of [
    ['--ssl-keyfile', sslKeyfile],
    ['--ssl-certfile', sslCertfile],
  ] as const)
    if (file !== null && !existsSync(file)) throw badFlag(`${name}: ${file} does not exist`);
  if (uds !== null && host !== null) throw badFlag('--uds and --host exclude each other');
  if (headless && frontendAddress === null)
    throw badFlag('--headless needs --frontend-address, else nobody can attach');
  if (rootPath !== null && !/^(\/[^/?#]+)+$/.test(rootPath))
    throw badFlag(`--root-path: ${rootPath} is not a path such as /llm`);
  if (fastMath)
    throw badFlag('--fast-math is not built yet: every kernel gives the same tokens in any batch');
  if (device !== 'reference' && blockSize % 16 !== 0)
    throw badFlag(`--block-size: ${blockSize} is not a multiple of 16`);
}

/** Says what an operator should know before the server is ready. */
export function report(config: Config, log: Logger): void {
  const { host, apiKeys, flags, defaultSampling } = config;
  if (!isLoopback(host) && flags.uds === null && !flags.headless && apiKeys.length === 0)
    log.warn(`anybody who reaches ${host} can use this server: there is no --api-key`);
  if (Object.keys(defaultSampling).length > 0)
    log.info({ ...defaultSampling }, 'sampling defaults of generation_config.json and flags');
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

const badFlag = (message: string) => new StartError(exitCodes.badFlag, message);
