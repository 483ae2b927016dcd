// For scripts/check-gpu.py: writes the config.json of a shape, or lets the engine generate greedily
// and writes ids with their logprobs, all prompts in one batch and then each alone.
//
//   node dist/scripts/bench-gpu/generate.js shape NAME FOLDER
//   node dist/scripts/bench-gpu/generate.js run MODEL_DIR PROMPTS.json OUT.json NUM_TOKENS [DEVICE]
//
// PROMPTS.json: lists of token ids. OUT.json: { device, batch: Row[], alone: Row[] }.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../common/package-root.ts';
import { LLM, type LlmOutput } from '../../frontend/index.ts';
import { shapes, writeShape, type ShapeName } from './shapes.ts';

interface Row {
  readonly ids: readonly number[];
  /** Of each id, and of the best ones with theirs. */
  readonly logprobs: readonly number[];
  readonly topIds: readonly (readonly number[])[];
  readonly topLogprobs: readonly (readonly number[])[];
}

const numTop = 20;

async function run(model: string, prompts: number[][], numTokens: number, device: string) {
  const hasTokenizer = existsSync(join(model, 'tokenizer.json'));
  const llm = await LLM.create({
    model,
    // Only ids matter; any tokenizer will do.
    ...(!hasTokenizer && { tokenizer: join(packageRoot, 'models/demo') }),
    device,
    maxModelLen: Math.max(...prompts.map(({ length }) => length)) + numTokens,
    maxNumSeqs: prompts.length,
    enablePrefixCaching: false,
    // Whoever compares has models on the same card.
    gpuMemoryUtilization: 0.5,
  });
  const params = { maxTokens: numTokens, temperature: 0, ignoreEos: true, logprobs: numTop };
  try {
    const batch = (await llm.generate(prompts, params)).map(rowOf);
    const alone: Row[] = [];
    for (const prompt of prompts) alone.push(rowOf((await llm.generate([prompt], params))[0]!));
    return { batch, alone };
  } finally {
    await llm.close();
  }
}

function rowOf({ outputs }: LlmOutput): Row {
  const { tokenIds, logprobs } = outputs[0]!;
  const tokens = logprobs ?? [];
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
  writeFileSync(out!, JSON.stringify(await run(model!, lists, Number(numTokens), device)));
} else {
  process.stderr.write(`generate: shape ${Object.keys(shapes).join('|')} FOLDER, or run ...\n`);
  process.exit(64);
}
