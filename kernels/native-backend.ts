// What the native backends (cpu, cuda) share: a load's program as flat numbers with its weights, a
// step's output as columns, and the calls that go straight down to the addon.
import { crc32 } from 'node:zlib';
import { KernelError } from '../common/errors.ts';
import { columnTypes, type Column } from '../common/wire/columns.ts';
import { stepOutputColumns, type StepOutputColumns } from '../common/wire/step.ts';
import type { NativeBackendObject, NativeLoad, NativeReport } from './addon.ts';
import type {
  Backend,
  BackendInfo,
  BackendLoad,
  BackendName,
  BackendPosition,
  StepResult,
  WeightPart,
} from './backend.ts';
import {
  dtypeBytes,
  dtypes,
  flattenProgram,
  mostRows,
  type Dtype,
  type WeightSource,
} from './program.ts';

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

const noBytes = new Uint8Array(0);

/** What a backend that makes up weights needs to know: the same numbers in whatever part of a tensor. */
function madeUpPart(dtype: Dtype, source: WeightSource): NativeLoad['weights'][number][number] {
  const { tensor, tensorShape, rowStart, numRows, columnStart, numColumns } = source;
  const madeUp = {
    tensor: crc32(tensor),
    firstRow: rowStart,
    firstColumn: columnStart,
    tensorRows: tensorShape[0]!,
    tensorColumns: tensorShape[1] ?? 1,
  };
  return { dtype: dtypes.indexOf(dtype), numRows, numColumns, data: noBytes, madeUp };
}

function nativeParts({ program, weights, dummySeed }: BackendLoad): NativeLoad['weights'] {
  return program.weights.map((spec, i) => {
    if (dummySeed !== null && !spec.constant)
      return spec.sources.map((source) => madeUpPart(spec.dtype, source));
    const parts = spec.constant ? [constantPart(spec.constant)] : weights[i];
    if (!parts) throw new KernelError(`weight ${spec.name} is missing`);
    return parts.map((part) => ({ ...part, dtype: dtypes.indexOf(part.dtype) }));
  });
}

export abstract class NativeBackend<N extends NativeBackendObject> implements Backend {
  abstract readonly name: BackendName;
  onStep: ((result: StepResult) => void) | null = null;
  onError: ((error: Error) => void) | null = null;
  protected readonly native: N;
  /** Of each buffer of the program. */
  private bufferBytes: readonly number[] = [];

  /** `make` is handed what the addon reports to. */
  protected constructor(make: (report: NativeReport) => N) {
    this.native = make((error, step, hash, startUs, endUs, deviceIdleUs, body, table) => {
      if (error) {
        this.onError?.(error);
        return;
      }
      const columns = unpackOutput(body, table);
      this.onStep?.({ step, hash, startUs, endUs, deviceIdleUs, columns });
    });
  }

  abstract load(load: BackendLoad): Promise<BackendInfo>;

  /** What every native load is given. */
  protected nativeLoad(load: BackendLoad): NativeLoad {
    const { program } = load;
    const { maxNumTokens, maxNumLogits } = program;
    this.bufferBytes = program.buffers.map(
      (buffer) => mostRows(program, buffer) * buffer.columns * dtypeBytes[buffer.dtype],
    );
    return {
      flat: flattenProgram(program),
      weights: nativeParts(load),
      vocabSize: program.vocabSize,
      arenaBytes: program.arenaBytes,
      maxNumTokens,
      maxNumLogits,
      blockSize: load.blockSize,
      maxNumSeqs: load.maxNumSeqs,
      maxModelLen: load.maxModelLen,
      maxLogprobs: load.maxLogprobs,
      asyncDepth: load.asyncDepth,
      debugSync: load.debugSync,
    };
  }

  submit(step: number, numTokens: number, body: Uint8Array, table: Int32Array): void {
    this.native.submit(step, numTokens, body, table);
  }

  position(): BackendPosition {
    const { step, opIndex } = this.native.position();
    return { step, opIndex };
  }

  /** What this rank has shown each other rank so far; 0 where there is one. */
  shownBytes(): number {
    return this.native.position().shownBytes;
  }

  /** For tests, between steps: buffer `index` of the program, or new content for its beginning. */
  readBuffer(index: number): ArrayBuffer {
    return this.native.readBuffer(index, this.bufferBytes[index]!);
  }
  writeBuffer(index: number, values: Uint8Array | Uint16Array | Float32Array): void {
    const { buffer, byteOffset, byteLength } = values;
    this.native.writeBuffer(index, new Uint8Array(buffer, byteOffset, byteLength));
  }

  close(): Promise<void> {
    this.native.close();
    return Promise.resolve();
  }
}
