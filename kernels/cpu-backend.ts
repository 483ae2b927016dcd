// The CPU backend: the Backend interface over the addon's CpuBackend. What it computes lies in
// kernels/cpu; here a program becomes flat numbers and a step's output becomes columns.
import { KernelError } from '../common/errors.ts';
import { columnTypes, type Column } from '../common/wire/columns.ts';
import { stepOutputColumns, type StepOutputColumns } from '../common/wire/step.ts';
import { loadAddon, type NativeCpuBackend } from './addon.ts';
import type {
  Backend,
  BackendInfo,
  BackendLoad,
  BackendPosition,
  StepResult,
  WeightPart,
} from './backend.ts';
import { dtypes, flattenProgram, type Program } from './program.ts';

/** Variants in rising preference; '' is the best that this machine runs. */
export type CpuVariant = '' | 'portable' | 'avx2' | 'avx512';

/** [name, constructor] of each output column, in the order of the native table. */
const outputColumns = Object.entries(stepOutputColumns).map(
  ([name, type]) => [name, columnTypes[type]] as const,
);

function unpackOutput(body: ArrayBuffer, table: Int32Array): StepOutputColumns {
  const columns: Record<string, Column> = {};
  outputColumns.forEach(([name, Type], i) => {
    columns[name] = new Type(body, table[2 * i], table[2 * i + 1]);
  });
  return columns as StepOutputColumns;
}

/** A constant as the one part of its weight. */
function constantPart(values: Float32Array): WeightPart {
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { dtype: 'f32', numRows: 1, numColumns: values.length, data };
}

function nativeParts(program: Program, weights: BackendLoad['weights']) {
  return program.weights.map((spec, i) => {
    const parts = spec.constant ? [constantPart(spec.constant)] : weights[i];
    if (!parts) throw new KernelError(`weight ${spec.name} is missing`);
    return parts.map((part) => ({ ...part, dtype: dtypes.indexOf(part.dtype) }));
  });
}

export class CpuBackend implements Backend {
  readonly name = 'cpu';
  onStep: ((result: StepResult) => void) | null = null;
  onError: ((error: Error) => void) | null = null;
  readonly #variant: CpuVariant;
  readonly #native: NativeCpuBackend;

  constructor(variant: CpuVariant = '') {
    this.#variant = variant;
    this.#native = new (loadAddon().CpuBackend)(
      (error, step, numTop, hash, startUs, endUs, body, table) => {
        if (error) {
          this.onError?.(error);
          return;
        }
        const columns = unpackOutput(body, table);
        this.onStep?.({ step, numTop, hash, startUs, endUs, columns });
      },
    );
  }

  async load(load: BackendLoad): Promise<BackendInfo> {
    const { program } = load;
    if (program.actDtype !== 'f32')
      throw new KernelError(`the cpu backend computes in f32, not in ${program.actDtype}`);
    const { variant, memory } = await this.#native.load({
      flat: flattenProgram(program),
      weights: nativeParts(program, load.weights),
      vocabSize: program.vocabSize,
      arenaBytes: program.arenaBytes,
      maxNumTokens: program.maxNumTokens,
      maxNumLogits: program.maxNumLogits,
      blockSize: load.blockSize,
      numBlocks: load.numBlocks,
      maxNumSeqs: load.maxNumSeqs,
      maxModelLen: load.maxModelLen,
      numThreads: load.numThreads,
      asyncDepth: load.asyncDepth,
      debugSync: load.debugSync,
      variant: this.#variant,
    });
    const threads = `${load.numThreads} ${load.numThreads === 1 ? 'thread' : 'threads'}`;
    return { device: `cpu (${variant}, ${threads})`, memory };
  }

  submit(step: number, numTokens: number, body: Uint8Array, table: Int32Array): void {
    this.#native.submit(step, numTokens, body, table);
  }

  position(): BackendPosition {
    return this.#native.position();
  }

  /** For tests, between steps: a copy of buffer `index` of the program, or its new content. */
  readBuffer(index: number): Float32Array {
    return this.#native.buffer(index);
  }
  writeBuffer(index: number, values: Float32Array): void {
    this.#native.buffer(index, values);
  }

  close(): Promise<void> {
    this.#native.close();
    return Promise.resolve();
  }
}

export async function createCpuBackend(): Promise<Backend> {
  return Promise.resolve(new CpuBackend());
}
