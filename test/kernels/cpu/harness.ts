// What the CPU backend's tests share: a model folder as a loaded backend, steps made from short
// descriptions, and results awaited one by one. Stands in for the engine; knows nothing of it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultSamplingParams, type SamplingParams } from '../../../common/sampling-params.ts';
import { packColumns } from '../../../common/wire/columns.ts';
import { stepFlags, stepInputColumns, type StepInputColumns } from '../../../common/wire/step.ts';
import { readModelConfig } from '../../../common/model-config.ts';
import { loadAddon, type NativeBackendObject } from '../../../kernels/addon.ts';
import type { BackendLoad, StepResult, WeightPart } from '../../../kernels/backend.ts';
import { CpuBackend, type CpuVariant } from '../../../kernels/cpu-backend.ts';
import type { NativeBackend } from '../../../kernels/native-backend.ts';
import type { Dtype, Program } from '../../../kernels/program.ts';
import { buildProgram } from '../../../worker/program/build.ts';

export interface NewRow {
  readonly row: number;
  readonly tokens: readonly number[];
  readonly numPromptTokens?: number;
  readonly params?: Partial<SamplingParams>;
  /** EOS and the like, beside params.stopTokenIds. */
  readonly stopIds?: readonly number[];
  readonly maxNumTokens?: number;
  /** Block ids from entry 0 on. */
  readonly blocks: readonly number[];
}

export interface StepRow {
  readonly row: number;
  readonly start: number;
  readonly count: number;
  readonly flags: number;
}

/** Columns of a step that fills `rows` and schedules `scheduled`. */
export function stepColumns(rows: readonly NewRow[], scheduled: readonly StepRow[]) {
  const params = rows.map((row): SamplingParams => ({ ...defaultSamplingParams, ...row.params }));
  const f32 = (pick: (p: SamplingParams) => number) => Float32Array.from(params, pick);
  const i32 = (pick: (p: SamplingParams, row: NewRow) => number) =>
    Int32Array.from(params, (p, i) => pick(p, rows[i]!));
  const ids = (pick: (p: SamplingParams, row: NewRow) => readonly number[]) =>
    Int32Array.from(params.flatMap((p, i) => pick(p, rows[i]!)));
  const stops = (p: SamplingParams, row: NewRow) => [...(row.stopIds ?? []), ...p.stopTokenIds];
  const columns: StepInputColumns = {
    newRow: Int32Array.from(rows, (row) => row.row),
    newNumTokens: Int32Array.from(rows, (row) => row.tokens.length),
    newNumPromptTokens: Int32Array.from(rows, (row) => row.numPromptTokens ?? row.tokens.length),
    newTokenIds: ids((_, row) => row.tokens),
    newTemperature: f32((p) => p.temperature),
    newTopP: f32((p) => p.topP),
    newTopK: i32((p) => p.topK),
    newMinP: f32((p) => p.minP),
    newPresencePenalty: f32((p) => p.presencePenalty),
    newFrequencyPenalty: f32((p) => p.frequencyPenalty),
    newRepetitionPenalty: f32((p) => p.repetitionPenalty),
    newSeed: BigUint64Array.from(params, (p) => BigInt(p.seed ?? 0)),
    newMinTokens: i32((p) => p.minTokens),
    newMaxNumTokens: i32((_, row) => row.maxNumTokens ?? 1 << 30),
    newNumLogprobs: i32((p) => p.logprobs ?? -1),
    newNumPromptLogprobs: i32((p) => p.promptLogprobs ?? -1),
    newNumLogprobIds: i32((p) => p.logprobTokenIds?.length ?? 0),
    logprobIds: ids((p) => p.logprobTokenIds ?? []),
    newNumStopIds: i32((p, row) => stops(p, row).length),
    stopIds: ids(stops),
    newNumLogitBias: i32((p) => p.logitBias?.ids.length ?? 0),
    logitBiasIds: ids((p) => p.logitBias?.ids ?? []),
    logitBias: Float32Array.from(params.flatMap((p) => p.logitBias?.values ?? [])),
    newNumAllowedIds: i32((p) => p.allowedTokenIds?.length ?? 0),
    allowedIds: ids((p) => p.allowedTokenIds ?? []),
    newNumBadWords: i32((p) => p.badWords.length),
    badWordLength: ids((p) => p.badWords.map((word) => word.length)),
    badWordIds: ids((p) => p.badWords.flat()),
    blockRow: Int32Array.from(rows.flatMap((row) => row.blocks.map(() => row.row))),
    blockIndex: Int32Array.from(rows.flatMap((row) => row.blocks.map((_, i) => i))),
    blockId: Int32Array.from(rows.flatMap((row) => row.blocks)),
    row: Int32Array.from(scheduled, (s) => s.row),
    start: Int32Array.from(scheduled, (s) => s.start),
    count: Int32Array.from(scheduled, (s) => s.count),
    flags: Int32Array.from(scheduled, (s) => s.flags),
  };
  return columns;
}

/** The body and table that Backend.submit takes. */
export function packStep(columns: StepInputColumns): { body: Uint8Array; table: Int32Array } {
  const { table: entries, body } = packColumns(columns);
  const byName = new Map(entries.map(([name, , offset, count]) => [name, [offset, count]]));
  const table = Int32Array.from(Object.keys(stepInputColumns).flatMap((name) => byName.get(name)!));
  return { body, table };
}

type AnyBackend = NativeBackend<NativeBackendObject>;

/** A loaded backend whose steps are promises. */
export class Harness {
  readonly backend: AnyBackend;
  readonly #program: Program;
  #step = 0;
  readonly #waiting: {
    resolve: (result: StepResult) => void;
    reject: (error: Error) => void;
  }[] = [];

  constructor(backend: AnyBackend, program: Program) {
    this.backend = backend;
    this.#program = program;
    backend.onStep = (result) => this.#waiting.shift()?.resolve(result);
    backend.onError = (error) => {
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    };
  }

  static async load(load: BackendLoad, variant: CpuVariant = ''): Promise<Harness> {
    const backend = new CpuBackend(variant);
    await backend.load(load);
    return new Harness(backend, load.program);
  }

  /** Index of the buffer that `sample` reads. */
  get logitsBuffer(): number {
    const op = this.#program.ops.find((o) => o.op === 'sample');
    const logits = op?.args['logits'];
    if (!logits || !('buffer' in logits)) throw new Error('no sample op');
    return logits.buffer;
  }

  submit(columns: StepInputColumns): Promise<StepResult> {
    const { body, table } = packStep(columns);
    const numTokens = columns.count.reduce((sum, count) => sum + count, 0);
    const result = new Promise<StepResult>((resolve, reject) =>
      this.#waiting.push({ resolve, reject }),
    );
    try {
      this.backend.submit(this.#step++, numTokens, body, table);
    } catch (error) {
      this.#waiting.pop();
      throw error;
    }
    return result;
  }

  step(rows: readonly NewRow[], scheduled: readonly StepRow[]): Promise<StepResult> {
    return this.submit(stepColumns(rows, scheduled));
  }

  /** Decodes `count` more tokens of a row whose history has `numTokens`, two steps in flight. */
  async decode(row: number, numTokens: number, count: number): Promise<number[]> {
    const results: Promise<StepResult>[] = [];
    const ids: number[] = [];
    for (let i = 0; i < count; i++) {
      results.push(
        this.step([], [{ row, start: numTokens - 1 + i, count: 1, flags: stepFlags.sample }]),
      );
      if (i > 0) ids.push((await results[i - 1]!).columns.tokenId[0]!);
    }
    if (count > 0) ids.push((await results[count - 1]!).columns.tokenId[0]!);
    return ids;
  }

  close(): Promise<void> {
    return this.backend.close();
  }
}

export const defaultLoad = {
  blockSize: 16,
  numBlocks: 64,
  kvCacheMemoryBytes: null,
  memoryUtilization: 1,
  fitModelLen: false,
  dummySeed: null,
  maxNumSeqs: 40,
  maxModelLen: 512,
  maxLogprobs: 20,
  numThreads: 2,
  asyncDepth: 2,
  fastMath: false,
  enforceEager: false,
  debugSync: true,
};

/** The parts of a program's weights from a folder with one safetensors file. */
export function readParts(program: Program, folder: string): WeightPart[][] {
  const path = join(folder, 'model.safetensors');
  const headerBytes = Number(new DataView(readFileSync(path).buffer).getBigUint64(0, true));
  const mapped = loadAddon().mapFile(path);
  const file = new Uint8Array(mapped.slice(0, mapped.numBytes));
  const header = JSON.parse(Buffer.from(file.subarray(8, 8 + headerBytes)).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const kinds: Record<string, Dtype> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };
  return program.weights.map((weight) =>
    weight.sources.map(({ tensor, rowStart, numRows }) => {
      const { dtype, shape, data_offsets: offsets } = header[tensor]!;
      const numColumns = shape[1] ?? 1;
      const rowBytes = (offsets[1] - offsets[0]) / shape[0]!;
      const from = 8 + headerBytes + offsets[0] + rowStart * rowBytes;
      const data = file.subarray(from, from + numRows * rowBytes);
      return { dtype: kinds[dtype]!, numRows, numColumns, data };
    }),
  );
}

export interface ModelOptions {
  readonly load?: Partial<BackendLoad>;
  readonly weightDtype?: Dtype;
  readonly kvDtype?: Dtype;
  readonly maxNumTokens?: number;
  readonly maxNumLogits?: number;
  readonly variant?: CpuVariant;
}

/** A Hugging Face folder as a loaded backend. */
export async function loadModel(folder: string, options: ModelOptions = {}): Promise<Harness> {
  const program = buildProgram(readModelConfig(folder), {
    actDtype: 'f32',
    weightDtype: options.weightDtype ?? 'bf16',
    kvDtype: options.kvDtype ?? 'f32',
    interleave: 0,
    maxNumTokens: options.maxNumTokens ?? 512,
    maxNumLogits: options.maxNumLogits ?? 64,
  });
  const weights = readParts(program, folder);
  return Harness.load({ ...defaultLoad, ...options.load, program, weights }, options.variant);
}

/** Blocks for `numTokens` tokens: consecutive ids from `first` on. */
export function blocksFor(numTokens: number, first = 1, blockSize = 16): number[] {
  return Array.from({ length: Math.ceil(numTokens / blockSize) }, (_, i) => first + i);
}
