// What MODEL means: a folder in Hugging Face form, or the demo model that the package brings; its
// tokenizer, chat template and the sampling defaults of its generation_config.json.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { badModel, exitCodes, StartError } from '../../common/errors.ts';
import { readModelJson, statModelPath } from '../../common/model-file.ts';
import { packageRoot } from '../../common/package-root.ts';
import { repetitionPenaltyRange, type DefaultSampling } from '../../common/sampling-params.ts';
import type { Flags } from './flags.ts';

const [minPenalty, maxPenalty] = repetitionPenaltyRange;

export const demoModelName = 'vllm-ts-demo';

export interface ModelChoice {
  /** Folder with config.json and weights. */
  readonly path: string;
  /** Its name in the API unless --served-model-name says otherwise. */
  readonly name: string;
}

export function chooseModel(model: string | null, flags: Flags): ModelChoice {
  if (model === null) refuseSwallowed(flags);
  if (model === null) return { path: join(packageRoot, 'models/demo'), name: demoModelName };
  if (statModelPath(model)?.isDirectory() !== true)
    throw badModel(
      `${model} is not a folder. MODEL is a Hugging Face folder with config.json, *.safetensors ` +
        'and tokenizer.json; names on the hub and GGUF files are not supported so far' +
        (hubName.test(model) ? `: hf download ${model} --local-dir FOLDER fetches one` : ''),
    );
  return { path: model, name: model };
}

/** Flags that take several values take what follows them, a MODEL too: then another would be served. */
function refuseSwallowed({ servedModelName, apiKey }: Flags): void {
  const swallowed = (name: string, values: readonly string[]) => {
    const folder = values.find((value) => existsSync(join(value, 'config.json')));
    const isFollowed = values.length > 1 && looksLikeModel.test(values.at(-1)!);
    if (folder === undefined && !isFollowed) return;
    // What only looks like a model may be a key, which is not shown.
    const [taken, model] = [folder ?? 'what looks like a MODEL', folder ?? 'MODEL'];
    throw new StartError(
      exitCodes.badFlag,
      `${name} has taken ${taken} for a value of its own: MODEL comes first, vllm-ts serve ${model} ${name} ...`,
    );
  };
  swallowed('--served-model-name', servedModelName);
  swallowed('--api-key', apiKey);
}

const hubName = /^\w[\w.-]*\/[\w.-]+$/;

/** A name on the hub, a path or a file: nobody's second key or name for the demo model. */
const looksLikeModel = /^([\w.-]+\/[\w.-]+|[.~]*\/.*|.*\.gguf)$/;

export function checkTokenizer(path: string): void {
  if (!isFile(join(path, 'tokenizer.json')))
    throw badModel(`${join(path, 'tokenizer.json')} is missing; --tokenizer names another folder`);
}

/** A template's file as given, or the template's own text; null = the model's. */
export function readChatTemplate(given: string | null): { path: string } | { text: string } | null {
  if (given === null) return null;
  const isTemplate = /\{[{%]/.test(given);
  // A template is no path, whatever it is long.
  if (isTemplate && !existsSync(given)) return { text: given };
  let why = `${given} is neither a file nor a template`;
  try {
    if (isFile(given)) return { path: given };
  } catch (error) {
    // It cannot be looked at.
    why = (error as Error).message;
  }
  throw new StartError(exitCodes.badFlag, `--chat-template: ${why}`);
}

/** Field of generation_config.json -> ours, with the values that sampling takes. */
const samplingFields: Readonly<
  Record<string, { to: keyof DefaultSampling; isValid: (value: number) => boolean; range: string }>
> = {
  temperature: { to: 'temperature', isValid: (v) => v >= 0 && v <= 2, range: '0 to 2' },
  top_p: { to: 'topP', isValid: (v) => v > 0 && v <= 1, range: 'above 0, at most 1' },
  top_k: { to: 'topK', isValid: (v) => Number.isInteger(v) && v >= -1, range: 'whole, -1 or more' },
  min_p: { to: 'minP', isValid: (v) => v >= 0 && v <= 1, range: '0 to 1' },
  repetition_penalty: {
    to: 'repetitionPenalty',
    isValid: (v) => v >= minPenalty && v <= maxPenalty,
    range: 'above 0',
  },
  max_new_tokens: { to: 'maxTokens', isValid: (v) => Number.isInteger(v) && v > 0, range: 'whole' },
};

/** Sampling defaults of --generation-config, then --override-generation-config. */
export function readDefaultSampling(flags: Flags, modelPath: string): DefaultSampling {
  const { generationConfig, overrideGenerationConfig } = flags;
  const folder =
    generationConfig === null || generationConfig === 'auto' ? modelPath : generationConfig;
  const file = join(folder, 'generation_config.json');
  // A model need not have one; a folder that is named must.
  const isRead = generationConfig !== 'vllm' && (folder !== modelPath || isFile(file));
  if (folder !== modelPath && isRead && !isFile(file))
    throw new StartError(exitCodes.badFlag, `--generation-config: ${file} does not exist`);
  const fromFile = isRead ? pickSampling(readModelJson(file) ?? {}, file, exitCodes.badModel) : {};
  for (const key of Object.keys(overrideGenerationConfig))
    if (!(key in samplingFields))
      throw new StartError(
        exitCodes.badFlag,
        `--override-generation-config: ${key} is not one of ${Object.keys(samplingFields).join(', ')}`,
      );
  const overrides = pickSampling(
    overrideGenerationConfig,
    '--override-generation-config',
    exitCodes.badFlag,
  );
  return { ...fromFile, ...overrides };
}

function pickSampling(
  values: Readonly<Record<string, unknown>>,
  source: string,
  exitCode: number,
): DefaultSampling {
  const picked: Partial<Record<keyof DefaultSampling, number>> = {};
  for (const [key, { to, isValid, range }] of Object.entries(samplingFields)) {
    const value = values[key];
    if (value === undefined || value === null) continue;
    if (typeof value !== 'number' || !isValid(value))
      throw new StartError(exitCode, `${source}: ${key} must be ${range}`);
    picked[to] = key === 'top_k' ? Math.max(0, value) : value;
  }
  return picked;
}

const isFile = (path: string) => statModelPath(path)?.isFile() === true;
