// For scripts/check-gpu.py: writes the config.json of a shape, or lets the engine generate greedily
// and writes ids with their logprobs, all prompts in one batch and then each alone; then whole rows
// of logprobs, of the first tokens of the first prompts.
//
//   node dist/scripts/bench-gpu/generate.js shape NAME FOLDER
//   node dist/scripts/bench-gpu/generate.js run MODEL_DIR PROMPTS.json OUT NUM_TOKENS [DEVICE]
//
// PROMPTS.json: lists of token ids. OUT.json: { batch: Row[], alone: Row[], numFullPrompts,
// numFullTokens }. OUT.f32: whole rows [numFullPrompts][numFullTokens][vocabulary].
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../common/package-root.ts';
import { LLM, type LlmOutput, type LlmParams } from '../../frontend/index.ts';
import { shapes, writeShape, type ShapeName } from './shapes.ts';

interface Row {
  readonly ids: readonly number[];
  /** Of each id, and of the best ones with theirs. */
  readonly logprobs: readonly number[];
  readonly topIds: readonly (readonly number[])[];
  readonly topLogprobs: readonly (readonly number[])[];
}

const numTop = 20;
/** One request may name so many ids. */
const namedAtOnce = 128;
const numFullPrompts = 4;
/** The first comes from a prompt's step, the others from decode steps. */
const numFullTokens = 3;

async function run(model: string, prompts: number[][], numTokens: number, device: string) {
  const hasTokenizer = existsSync(join(model, 'tokenizer.json'));
  const llm = await LLM.create({
    model,
    // Only ids matter; any tokenizer will do.
    ...(!hasTokenizer && { tokenizer: join(packageRoot, 'models/demo') }),
    device,
    maxModelLen: Math.max(...prompts.map(({ length }) => length)) + numTokens,
    maxNumSeqs: 64,
    maxQueuedRequests: 0,
    maxQueuedTokens: 0,
    enablePrefixCaching: false,
    // Whoever compares has models on the same card.
    gpuMemoryUtilization: 0.5,
  });
  const params = { maxTokens: numTokens, temperature: 0, ignoreEos: true, logprobs: numTop };
  try {
    const batch = (await llm.generate(prompts, params)).map(rowOf);
    const alone: Row[] = [];
    for (const prompt of prompts) alone.push(rowOf((await llm.generate([prompt], params))[0]!));
    const full: Float32Array[] = [];
    for (const prompt of prompts.slice(0, numFullPrompts))
      full.push(await fullRows(llm, prompt, { ...params, maxTokens: numFullTokens }));
    return { json: { batch, alone, numFullPrompts: full.length, numFullTokens }, full };
  } finally {
    await llm.close();
  }
}

/**
 * Logprobs of the whole vocabulary, [numFullTokens][vocabSize]: one request names part of it, so the
 * prompt is asked as often as it takes. Throws where these disagree about what they have in common.
 */
async function fullRows(llm: LLM, prompt: number[], params: LlmParams): Promise<Float32Array> {
  const { vocabSize } = llm.engine.info;
  const rows = new Float32Array(numFullTokens * vocabSize).fill(NaN);
  const begins = Array.from(
    { length: Math.ceil(vocabSize / namedAtOnce) },
    (_, i) => i * namedAtOnce,
  );
  const common = await Promise.all(
    begins.map(async (begin) => {
      const length = Math.min(namedAtOnce, vocabSize - begin);
      const logprobTokenIds = Array.from({ length }, (_, i) => begin + i);
      const [output] = await llm.generate([prompt], { ...params, logprobTokenIds });
      const { ids, logprobs, topIds, topLogprobs } = rowOf(output!);
      topIds.forEach((named, t) => {
        named.forEach((id, k) => (rows[t * vocabSize + id] = topLogprobs[t]![k]!));
      });
      return JSON.stringify([ids, logprobs]);
    }),
  );
  if (new Set(common).size !== 1)
    throw new Error(`tokens differ between requests that name other ids: ${common[0]!}`);
  return rows;
}

function rowOf({ outputs }: LlmOutput): Row {
  const { tokenIds, logprobs } = outputs[0]!;
  const tokens = [...(logprobs ?? [])];
  return {
    ids: tokenIds,
    logprobs: tokens.map((token) => token.logprobs[0]!),
    topIds: tokens.map(({ ids }) => [...ids.subarray(1)]),
    topLogprobs: tokens.map((token) => [...token.logprobs.subarray(1)]),
  };
}

const [command, ...args] = process.argv.slice(2);
if (command === 'shape' && args.length === 2 && Object.hasOwn(shapes, args[0]!)) {
  writeShape(args[1]!, args[0] as ShapeName);
} else if (command === 'run' && args.length >= 4) {
  const [model, prompts, out, numTokens, device = 'cuda'] = args;
  const lists = JSON.parse(readFileSync(prompts!, 'utf8')) as number[][];
  const { json, full } = await run(model!, lists, Number(numTokens), device);
  writeFileSync(`${out!}.json`, JSON.stringify(json));
  writeFileSync(`${out!}.f32`, Buffer.concat(full.map(({ buffer }) => new Uint8Array(buffer))));
} else {
  process.stderr.write(`generate: shape ${Object.keys(shapes).join('|')} FOLDER, or run ...\n`);
  process.exit(64);
}
