// Measures the whole engine on a GPU (every process, no HTTP) and prints one table beside limits and
// vLLM. Kernels alone are scripts/bench-gpu.py's business.
//
//   node dist/scripts/bench-gpu-engine.js [--rows a,b] [--list] [--fast-math] [--repeats 3]
//     [--smollm2 FOLDER --prompts FILE] [--work FOLDER] [--json FILE] [--device cuda] [--row-limit 120]
//     [--tensor-parallel-size 1] [--async-depth auto]
//
// A row that fails is reported and the next one is run. --smollm2 is a folder with config.json and
// tokenizer; without weights in it they are random, and the row says so. --prompts has a JSON object
// with `prompt` a line.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../common/package-root.ts';
import { LLM } from '../frontend/index.ts';
import { readArguments, readNumber, refuse } from './arguments.ts';
import { Random, runWork } from './bench-gpu/load.ts';
import { rows, type Row, type RowContext } from './bench-gpu/rows.ts';
import { writeRandomWeights, writeShape, type ShapeName } from './bench-gpu/shapes.ts';

const name = 'bench-gpu-engine';
const { values: options } = readArguments(name, import.meta.url, {
  options: {
    rows: { type: 'string' },
    list: { type: 'boolean', default: false },
    'fast-math': { type: 'boolean', default: false },
    repeats: { type: 'string', default: '3' },
    smollm2: { type: 'string' },
    prompts: { type: 'string' },
    work: { type: 'string', default: join(tmpdir(), 'vllm-ts-bench') },
    json: { type: 'string' },
    device: { type: 'string', default: 'cuda' },
    'row-limit': { type: 'string', default: '120' },
    'tensor-parallel-size': { type: 'string', default: '1' },
    'async-depth': { type: 'string', default: 'auto' },
  },
});

const print = (line: string) => process.stdout.write(`${line}\n`);
if (options.list) {
  for (const { id, what } of rows) print(`${id}: ${what}`);
  process.exit(0);
}
const numberOf = (flag: 'repeats' | 'row-limit' | 'tensor-parallel-size' | 'async-depth') =>
  readNumber(name, `--${flag}`, options[flag]);
const numRanks = numberOf('tensor-parallel-size');
const repeats = numberOf('repeats');
const limitSeconds = numberOf('row-limit');
const asyncDepth = options['async-depth'] === 'auto' ? 'auto' : numberOf('async-depth');
const ids =
  options.rows?.split(',') ??
  rows.flatMap(({ id, minRanks = 1 }) => (minRanks <= numRanks ? [id] : []));
const unknown = ids.find((id) => !rows.some((row) => row.id === id));
if (unknown !== undefined) refuse(name, `no row ${unknown}; --list names them`);
mkdirSync(options.work, { recursive: true });
const demo = join(packageRoot, 'models/demo');

const engineFlags = {
  device: options.device,
  fastMath: options['fast-math'],
  gpuMemoryUtilization: 0.9,
  maxNumSeqs: 256,
  maxNumBatchedTokens: 16_384,
  maxQueuedRequests: 0,
  maxQueuedTokens: 0,
  asyncDepth,
  ...(numRanks > 1 && { tensorParallelSize: numRanks }),
};

async function startEngine(shape: ShapeName | 'smollm2'): Promise<LLM> {
  const start = performance.now();
  const llm = await (shape === 'smollm2' ? startSmollm2() : startShape(shape));
  const maxId = Math.min(29_999, llm.engine.info.vocabSize - 1);
  await runWork(llm, { prompts: new Random(99).prompts(4, 64, maxId), maxTokens: 16 });
  print(
    `  ${shape}: engine ready and warm in ${((performance.now() - start) / 1000).toFixed(1)} s`,
  );
  return llm;
}

function startShape(shape: ShapeName): Promise<LLM> {
  return LLM.create({
    ...engineFlags,
    model: writeShape(options.work, shape),
    // No text is made of these ids.
    tokenizer: demo,
    loadFormat: 'dummy',
    maxModelLen: 4096,
  });
}

function startSmollm2(): Promise<LLM> {
  if (options.smollm2 === undefined) throw new Error('needs --smollm2 FOLDER');
  const hasWeights = existsSync(join(options.smollm2, 'model.safetensors'));
  if (!hasWeights) print('  smollm2: no model.safetensors, so the weights are random');
  return LLM.create({
    ...engineFlags,
    model: options.smollm2,
    loadFormat: hasWeights ? 'auto' : 'dummy',
    maxNumSeqs: 1024,
    maxModelLen: 512,
  });
}

/** From the start of the server's process to the first token; files are in the page cache. */
async function startToFirstToken(shape: ShapeName, weights: 'files' | 'dummy'): Promise<number[]> {
  const folder = writeShape(join(options.work, weights), shape);
  if (weights === 'files') {
    const begin = performance.now();
    const gigabytes = writeRandomWeights(folder) / 1e9;
    const took = (performance.now() - begin) / 1000;
    print(`  ${shape}: ${gigabytes.toFixed(2)} GB of weights, written in ${took.toFixed(1)} s`);
  }
  const seconds: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    const llm = await LLM.create({
      ...engineFlags,
      model: folder,
      tokenizer: demo,
      loadFormat: weights === 'files' ? 'auto' : 'dummy',
      maxModelLen: 4096,
    });
    try {
      await runWork(llm, { prompts: new Random(i).prompts(1, 16), maxTokens: 1 });
      seconds.push((performance.now() - start) / 1000);
    } finally {
      await llm.close();
    }
  }
  return seconds;
}

interface Result {
  readonly row: Row;
  readonly value: number | null;
  readonly note: string;
}

async function measure(row: Row, llm: LLM | null): Promise<Result> {
  const context: RowContext = {
    get llm() {
      if (!llm) throw new Error('this row has no engine');
      return llm;
    },
    promptsFile: options.prompts ?? null,
    repeats,
    startToFirstToken,
  };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`no result after ${limitSeconds} s`)),
      limitSeconds * 1000,
    );
  });
  try {
    const { value, note } = await Promise.race([row.measure(context), late]);
    return { row, value, note };
  } catch (error) {
    return failed(row, error);
  } finally {
    clearTimeout(timer);
  }
}

function failed(row: Row, error: unknown): Result {
  return { row, value: null, note: error instanceof Error ? error.message : String(error) };
}

/** The engine that is running, if any. */
class CurrentEngine {
  private shape: Row['shape'] = null;
  private llm: LLM | null = null;

  /** The engine for rows of this shape: the one that runs, or a fresh one; null needs none. */
  async of(shape: Row['shape']): Promise<LLM | null> {
    if (this.shape !== shape) await this.end();
    if (shape === null) return null;
    this.llm ??= await startEngine(shape);
    this.shape = shape;
    return this.llm;
  }

  async end(): Promise<void> {
    await this.llm?.close();
    this.llm = null;
    this.shape = null;
  }
}

/** Rows of one shape share an engine; after a failure the next row gets a fresh one. */
async function measureAll(): Promise<Result[]> {
  const results: Result[] = [];
  const engine = new CurrentEngine();
  for (const row of rows.filter(({ id }) => ids.includes(id))) {
    let result: Result;
    try {
      result = await measure(row, await engine.of(row.shape));
    } catch (error) {
      result = failed(row, error);
    }
    if (result.value === null) await engine.end();
    print(`  ${row.id}: ${shown(result)} (${result.note})`);
    results.push(result);
  }
  await engine.end();
  return results;
}

function shown({ row, value }: Result): string {
  if (value === null) return 'failed';
  return `${value.toFixed(row.unit === 'tok/s' ? 0 : row.unit === 'ms' ? 3 : 2)} ${row.unit}`;
}

function verdict({ row, value }: Result): string {
  if (value === null) return 'failed';
  const target = targetOf(row);
  if (target === null) return '';
  return (row.unit === 'tok/s' ? value >= target : value <= target) ? 'reached' : 'missed';
}

/** Limits and vLLM's figures are one GPU's; null: there is no target for so many. */
function targetOf(row: Row): number | null {
  const target = numRanks === 1 ? row.target : row.targetOfRanks?.[numRanks];
  return target === undefined || Number.isNaN(target) ? null : target;
}

const started = performance.now();
const results = await measureAll();
print(`\n| row | limit | vLLM | target | vllm-ts | |`);
print('| --- | --- | --- | --- | --- | --- |');
for (const result of results) {
  const { row } = result;
  const target = targetOf(row);
  const bound =
    target === null ? '' : `${row.unit === 'tok/s' ? '>=' : '<='} ${target} ${row.unit}`;
  print(
    `| ${row.what} | ${row.limit} | ${row.vllm} | ${bound} | ${shown(result)} | ${verdict(result)} |`,
  );
}
print(`\n${results.length} rows in ${((performance.now() - started) / 1000).toFixed(0)} s`);
if (options.json !== undefined)
  writeFileSync(
    options.json,
    JSON.stringify(
      results.map(({ row, value, note }) => ({ id: row.id, unit: row.unit, value, note })),
      null,
      1,
    ),
  );
process.exit(results.every(({ value }) => value !== null) ? 0 : 1);
