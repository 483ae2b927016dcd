// The same prompts on one GPU and over several: greedy tokens are equal up to the first step whose
// two best logits are close, and over several the same alone as in a batch, to the bit.
//
//   node dist/scripts/bench-gpu/parity.js --ranks 2 [--models demo,llama-8b] [--device cuda] [--files]
//     [--tokens 96] [--tolerance 0.1]
//
// A model is the demo model, or a shape of shapes.ts with made-up weights, which are the same
// whatever the number of ranks; with --files from a file of random numbers.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../common/package-root.ts';
import { LLM, type LlmOutput } from '../../frontend/index.ts';
import { readArguments, readNumber } from '../arguments.ts';
import { Random } from './load.ts';
import { shapes, writeRandomWeights, writeShape, type ShapeName } from './shapes.ts';

const { values: options } = readArguments('parity', import.meta.url, {
  options: {
    ranks: { type: 'string', default: '2' },
    models: { type: 'string', default: 'demo,llama-8b' },
    device: { type: 'string', default: 'cuda' },
    tokens: { type: 'string', default: '96' },
    tolerance: { type: 'string', default: '0.1' },
    files: { type: 'boolean', default: false },
  },
});
const print = (line: string) => process.stdout.write(`${line}\n`);
const demo = join(packageRoot, 'models/demo');
const lengths = [1, 5, 17, 64, 100, 257, 700];
const numTokens = readNumber('parity', '--tokens', options.tokens);
const numRanks = readNumber('parity', '--ranks', options.ranks);
const tolerance = readNumber('parity', '--tolerance', options.tolerance, { whole: false });

interface Generated {
  readonly ids: readonly number[];
  /** Of each step: the best logprob less the second. */
  readonly gaps: readonly number[];
  readonly logprobs: readonly number[];
}

async function start(model: string, numRanks: number): Promise<LLM> {
  const made = Object.hasOwn(shapes, model);
  const folder = made ? writeShape(join(tmpdir(), 'vllm-ts-bench'), model as ShapeName) : demo;
  if (made && options.files) writeRandomWeights(folder);
  return LLM.create({
    model: folder,
    ...(made && { tokenizer: demo }),
    ...(made && !options.files && { loadFormat: 'dummy' }),
    ...(options.device === 'cuda' && { device: 'cuda', gpuMemoryUtilization: 0.6 }),
    ...(options.device !== 'cuda' && { device: options.device }),
    ...(numRanks > 1 && { tensorParallelSize: numRanks }),
    maxModelLen: 1024,
    maxNumSeqs: 32,
    enablePrefixCaching: false,
  });
}

function generatedOf({ outputs }: LlmOutput): Generated {
  const { tokenIds, logprobs } = outputs[0]!;
  const tokens = [...(logprobs ?? [])];
  return {
    ids: tokenIds,
    gaps: tokens.map((token) => token.logprobs[1]! - token.logprobs[2]!),
    logprobs: tokens.map((token) => token.logprobs[0]!),
  };
}

/** Greedy tokens of all prompts at once, with the logprobs of the two best, and of some alone. */
async function generate(model: string, numRanks: number) {
  const llm = await start(model, numRanks);
  try {
    const maxId = Math.min(29_999, llm.engine.info.vocabSize - 1);
    const random = new Random(5);
    const prompts = lengths.flatMap((length) => random.prompts(1, length, maxId));
    const params = { maxTokens: numTokens, temperature: 0, ignoreEos: true };
    const batch = await llm.generate(prompts, { ...params, logprobs: 2 });
    // Without logprobs: decode steps are graphs.
    const plain = await llm.generate(prompts, params);
    const alone: LlmOutput[] = [];
    for (const prompt of prompts.slice(0, 4)) alone.push(...(await llm.generate([prompt], params)));
    const idsOf = (list: readonly LlmOutput[]) => list.map(({ outputs }) => outputs[0]!.tokenIds);
    return { batch: batch.map(generatedOf), plain: idsOf(plain), alone: idsOf(alone) };
  } finally {
    await llm.close();
  }
}

const firstDifference = (a: readonly number[], b: readonly number[]) =>
  a.findIndex((id, i) => b[i] !== id);

let faults = 0;
function fault(text: string): void {
  faults++;
  print(`BAD ${text}`);
}

async function compare(model: string, numRanks: number): Promise<void> {
  const one = await generate(model, 1);
  const many = await generate(model, numRanks);
  let numEqual = 0;
  let numTies = 0;
  let worst = 0;
  many.batch.forEach(({ ids, logprobs }, i) => {
    const where = `${model}, prompt of ${lengths[i]}`;
    if (firstDifference(ids, many.plain[i]!) >= 0) fault(`${where}: graphs have other tokens`);
    const alone = many.alone[i];
    if (alone && firstDifference(ids, alone) >= 0) fault(`${where}: other tokens alone`);
    const { ids: wanted, gaps, logprobs: wantedLogprobs } = one.batch[i]!;
    const at = firstDifference(wanted, ids);
    const same = at < 0 ? wanted.length : at;
    numEqual += same;
    for (let t = 0; t < same; t++)
      worst = Math.max(worst, Math.abs(logprobs[t]! - wantedLogprobs[t]!));
    if (at < 0) return;
    if (gaps[at]! > tolerance)
      fault(`${where}: token ${at} differs, where the best leads by ${gaps[at]!.toFixed(3)}`);
    else numTies++;
  });
  if (worst > tolerance) fault(`${model}: logprobs differ by ${worst.toFixed(4)}`);
  print(
    `${model}: ${numEqual} tokens of ${lengths.length} prompts equal on 1 and ${numRanks} ranks, ` +
      `${numTies} near ties; logprobs differ by at most ${worst.toFixed(4)}`,
  );
}

for (const model of options.models.split(',')) {
  try {
    await compare(model, numRanks);
  } catch (error) {
    fault(`${model}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
print(`${faults} faults`);
process.exit(faults === 0 ? 0 : 1);
