// Tokens per second of the CPU backend, through the Backend interface: decode of 1, 8 and 32 streams
// after 128 tokens each, and prefill of 512 tokens. Where a GGUF of the same model and Python's
// llama_cpp are given, llama.cpp runs beside it in alternation, so that both meet the same machine.
//
//   node dist/scripts/bench-cpu.js MODEL_DIR [--gguf FILE] [--python CMD] [--threads N]
//     [--rounds N] [--variant NAME] [--dtype bf16|f16|f32] [--kv-dtype f32|bf16] [--only TEXT]
//
// --only: cases whose names have the text.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { readModelConfig } from '../common/model-config.ts';
import { defaultSamplingParams } from '../common/sampling-params.ts';
import { packColumns } from '../common/wire/columns.ts';
import { stepFlags, stepInputColumns, type StepInputColumns } from '../common/wire/step.ts';
import { CpuBackend, type CpuVariant } from '../kernels/cpu-backend.ts';
import type { Dtype } from '../kernels/program.ts';
import { packageRoot } from '../common/package-root.ts';
import { buildProgram } from '../worker/program/build.ts';
import { Checkpoint } from '../worker/weights/checkpoint.ts';
import { loadWeights } from '../worker/weights/load-weights.ts';
import { readArguments, readNumber, refuse } from './arguments.ts';

const name = 'bench-cpu';
const { values: options, positionals } = readArguments(name, import.meta.url, {
  allowPositionals: true,
  options: {
    gguf: { type: 'string' },
    python: { type: 'string', default: 'python3' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '5' },
    variant: { type: 'string', default: '' },
    dtype: { type: 'string', default: 'bf16' },
    'kv-dtype': { type: 'string', default: 'f32' },
    only: { type: 'string' },
  },
});
const [folder = refuse(name, 'one MODEL_DIR is needed')] = positionals;
const numThreads = readNumber(name, '--threads', options.threads);
const numRounds = readNumber(name, '--rounds', options.rounds);

/** Tokens per second of wall time, and of CPU time of all threads. */
type Rate = readonly [wall: number, cpu: number];

const promptTokens = 128;
const decodeSteps = 16;
const blockSize = 16;
const maxModelLen = 1024;
const maxStreams = 32;

interface Scheduled {
  readonly row: number;
  readonly start: number;
  readonly count: number;
}

/** A step's columns: rows that are new (with their prompt) and rows that run. */
function makeStep(newRows: readonly number[], numTokens: number, scheduled: readonly Scheduled[]) {
  const per = (value: number) => Int32Array.from(newRows, () => value);
  const perFloat = (value: number) => Float32Array.from(newRows, () => value);
  const none = new Int32Array(0);
  const blocks = Math.ceil((numTokens + decodeSteps + 1) / blockSize);
  const entries = newRows.flatMap((row) => Array.from({ length: blocks }, (_, i) => [row, i]));
  const d = defaultSamplingParams;
  const columns: StepInputColumns = {
    newRow: Int32Array.from(newRows),
    newNumTokens: per(numTokens),
    newNumPromptTokens: per(numTokens),
    newTokenIds: Int32Array.from(
      newRows.flatMap((row) =>
        Array.from({ length: numTokens }, (_, i) => 100 + ((i * 37 + row * 911) % 5000)),
      ),
    ),
    newTemperature: perFloat(0),
    newTopP: perFloat(d.topP),
    newTopK: per(0),
    newMinP: perFloat(0),
    newPresencePenalty: perFloat(0),
    newFrequencyPenalty: perFloat(0),
    newRepetitionPenalty: perFloat(1),
    newSeed: BigUint64Array.from(newRows, () => 0n),
    newMinTokens: per(0),
    newMaxNumTokens: per(1 << 30),
    newNumLogprobs: per(-1),
    newNumPromptLogprobs: per(-1),
    newNumLogprobIds: per(0),
    logprobIds: none,
    newNumStopIds: per(0),
    stopIds: none,
    newNumLogitBias: per(0),
    logitBiasIds: none,
    logitBias: new Float32Array(0),
    newNumAllowedIds: per(0),
    allowedIds: none,
    newNumBadWords: per(0),
    badWordLength: none,
    badWordIds: none,
    blockRow: Int32Array.from(entries, ([row]) => row!),
    blockIndex: Int32Array.from(entries, ([, index]) => index!),
    blockId: Int32Array.from(entries, ([row, i]) => 1 + row! * (maxModelLen / blockSize) + i!),
    row: Int32Array.from(scheduled, (s) => s.row),
    start: Int32Array.from(scheduled, (s) => s.start),
    count: Int32Array.from(scheduled, (s) => s.count),
    flags: Int32Array.from(scheduled, () => stepFlags.sample),
  };
  const packed = packColumns(columns);
  const byName = new Map(packed.table.map(([name, , offset, count]) => [name, [offset, count]]));
  const table = Int32Array.from(Object.keys(stepInputColumns).flatMap((n) => byName.get(n)!));
  return { body: packed.body, table, numTokens: scheduled.reduce((sum, s) => sum + s.count, 0) };
}

class Bench {
  readonly #backend: CpuBackend;
  #step = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(backend: CpuBackend) {
    this.#backend = backend;
    backend.onStep = () => this.#waiting.shift()?.();
    backend.onError = (error) => {
      throw error;
    };
  }

  submit(step: ReturnType<typeof makeStep>): Promise<void> {
    const done = new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#backend.submit(this.#step++, step.numTokens, step.body, step.table);
    return done;
  }

  async prefill(numTokens: number): Promise<Rate> {
    const step = makeStep([0], numTokens, [{ row: 0, start: 0, count: numTokens }]);
    return timed(numTokens, () => this.submit(step));
  }

  async decode(streams: number): Promise<Rate> {
    const rows = Array.from({ length: streams }, (_, row) => row);
    for (const row of rows)
      await this.submit(makeStep([row], promptTokens, [{ row, start: 0, count: promptTokens }]));
    const steps = Array.from({ length: decodeSteps }, (_, i) =>
      makeStep(
        [],
        0,
        rows.map((row) => ({ row, start: promptTokens + i, count: 1 })),
      ),
    );
    return timed(streams * decodeSteps, async () => {
      // As the engine does: the next step is there before the last one ends.
      let before = Promise.resolve();
      for (const step of steps) {
        const done = this.submit(step);
        await before;
        before = done;
      }
      await before;
    });
  }
}

async function timed(numTokens: number, run: () => Promise<void>): Promise<Rate> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await run();
  const wall = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return [numTokens / wall, numTokens / ((user + system) / 1e6)];
}

/** llama.cpp in a Python process; null where it cannot run. */
async function startPeer(gguf: string, threads: string) {
  const script = `${packageRoot}/scripts/bench-cpu-llama.py`;
  const child = spawn(options.python, [script, gguf, threads], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  child.on('error', () => undefined);
  const first = await lines.next();
  if (first.done) return null;
  return {
    measure: async (what: string): Promise<Rate> => {
      child.stdin.write(`${what}\n`);
      const { value } = (await lines.next()) as { value: string };
      const [wall, cpu] = value.split(' ').map(Number);
      return [wall!, cpu!];
    },
    close: () => child.stdin.end(),
  };
}

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!;
const print = (line: string) => process.stdout.write(`${line}\n`);

function summary(rates: readonly Rate[]): string {
  const wall = rates.map(([w]) => w);
  const cpu = median(rates.map(([, c]) => c));
  return `${median(wall).toFixed(1)} (best ${Math.max(...wall).toFixed(1)}; ${cpu.toFixed(1)} per CPU s)`;
}

const config = readModelConfig(folder);
const program = buildProgram(config, {
  actDtype: 'f32',
  weightDtype: options.dtype as Dtype,
  kvDtype: options['kv-dtype'] as Dtype,
  interleave: 0,
  maxNumTokens: 512,
  maxNumLogits: maxStreams,
});
const backend = new CpuBackend(options.variant as CpuVariant);
const start = performance.now();
const info = await backend.load({
  program,
  weights: loadWeights(program, Checkpoint.open(folder)),
  blockSize,
  numBlocks: 1 + (maxStreams * maxModelLen) / blockSize,
  kvCacheMemoryBytes: null,
  memoryUtilization: 1,
  fitModelLen: false,
  dummySeed: null,
  maxNumSeqs: maxStreams,
  maxModelLen,
  maxLogprobs: 20,
  numThreads,
  asyncDepth: 2,
  fastMath: false,
  enforceEager: false,
  debugSync: false,
});
print(`${info.device}, loaded in ${(performance.now() - start).toFixed(0)} ms`);
const bench = new Bench(backend);
const peer = options.gguf === undefined ? null : await startPeer(options.gguf, options.threads);
if (options.gguf !== undefined && !peer) print('llama.cpp: not present');

const cases = [1, 8, 32].map((n) => ({ what: `decode ${n}`, run: () => bench.decode(n) }));
cases.push({ what: 'prefill 512', run: () => bench.prefill(512) });
for (const { what, run } of cases.filter((c) => c.what.includes(options.only ?? ''))) {
  const ours: Rate[] = [];
  const theirs: Rate[] = [];
  await run();
  for (let round = 0; round < numRounds; round++) {
    ours.push(await run());
    if (peer) theirs.push(await peer.measure(what));
  }
  const line = `${what}: ${summary(ours)}`;
  if (!peer) print(line);
  else {
    const wall = median(ours.map(([w], i) => w / theirs[i]![0]));
    const cpu = median(ours.map(([, c], i) => c / theirs[i]![1]));
    print(
      `${line}; llama.cpp ${summary(theirs)}; ratio ${wall.toFixed(2)} (CPU ${cpu.toFixed(2)})`,
    );
  }
}
peer?.close();
await backend.close();
