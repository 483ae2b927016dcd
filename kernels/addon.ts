// The native addon's face for TypeScript: what kernels/addon exports, and one load of it.
import { KernelError } from '../common/errors.ts';
import { loadNative } from '../common/native.ts';
import type { RankGroup } from './backend.ts';
import type { FlatProgram } from './program.ts';

export interface NativeArg {
  readonly name: string;
  readonly role: string;
  readonly dtype: string;
  /** Symbolic sizes, comma separated. */
  readonly shape: string;
  readonly optional: boolean;
}

export interface NativeOp {
  readonly name: string;
  readonly args: readonly NativeArg[];
  readonly attrs: readonly string[];
}

/** A step's output from native code: `error`, or the rest. */
export type NativeReport = (
  error: Error | null,
  step: number,
  hash: number,
  startUs: number,
  endUs: number,
  deviceIdleUs: number,
  body: ArrayBuffer,
  table: Int32Array,
) => void;

/** The rectangle of a tensor that a part is made up as. */
export interface NativeMadeUpPart {
  /** A hash of its name: u32. */
  readonly tensor: number;
  readonly firstRow: number;
  readonly firstColumn: number;
  readonly tensorRows: number;
  readonly tensorColumns: number;
}

/** What every backend's load() takes: a Program as flat numbers, weights, and the load's sizes. */
export interface NativeLoad {
  readonly flat: FlatProgram;
  readonly weights: readonly (readonly {
    readonly dtype: number;
    readonly numRows: number;
    readonly numColumns: number;
    readonly rowBytes?: number;
    /** Empty where the backend makes the part up. */
    readonly data: Uint8Array;
    readonly madeUp?: NativeMadeUpPart;
  }[])[];
  readonly vocabSize: number;
  readonly arenaBytes: number;
  readonly maxNumTokens: number;
  readonly maxNumLogits: number;
  readonly blockSize: number;
  readonly maxNumSeqs: number;
  readonly maxModelLen: number;
  readonly maxLogprobs: number;
  readonly asyncDepth: number;
  readonly debugSync: boolean;
}

export interface NativeCpuLoad extends NativeLoad {
  readonly numBlocks: number;
  readonly numThreads: number;
  readonly group?: RankGroup;
  /** A variant by name, or '' for the best that this machine runs. */
  readonly variant: string;
}

export interface NativeCudaGroup extends RankGroup {
  readonly localRank: number;
  readonly numLocalRanks: number;
  /** peer, nccl or auto. */
  readonly collectives: string;
}

export interface NativeCudaLoad extends NativeLoad {
  /** -1: weights are given; else those without parts are made on the device. */
  readonly dummySeed: number;
  /** 0: what memoryUtilization of the whole device leaves. */
  readonly kvCacheMemoryBytes: number;
  readonly memoryUtilization: number;
  readonly fitModelLen: boolean;
  readonly fastMath: boolean;
  readonly enforceEager: boolean;
  readonly group?: NativeCudaGroup;
  /** Where libvt_cuda.so may lie. */
  readonly folders: readonly string[];
  /** Folders that may hold cuBLASLt, ':' between. */
  readonly libraryPath: string;
}

export interface NativeBackendObject {
  submit(step: number, numTokens: number, body: Uint8Array, table: Int32Array): void;
  position(): { step: number; opIndex: number; shownBytes: number };
  /** For tests, between steps: the first bytes of a buffer of the program. */
  readBuffer(index: number, numBytes: number): ArrayBuffer;
  writeBuffer(index: number, data: Uint8Array): void;
  close(): void;
}

export interface NativeCpuBackend extends NativeBackendObject {
  load(load: NativeCpuLoad): Promise<{ variant: string; memory: Record<string, number> }>;
}

export interface NativeCudaBackend extends NativeBackendObject {
  load(load: NativeCudaLoad): Promise<{
    device: string;
    /** Lines. */
    notes: string;
    numBlocks: number;
    memory: Record<string, number>;
  }>;
}

export interface MappedFile {
  readonly numBytes: number;
  /** Bytes [begin, end), which must be no more than an ArrayBuffer can have. */
  slice(begin: number, end: number): ArrayBuffer;
}

export interface NativeAddon {
  /** Hands over the class of the errors that native code throws. */
  init(kernelError: typeof KernelError): void;
  /** The op table as kernels/op_table.h has it. */
  opTable(): NativeOp[];
  /** Column names and types as kernels/step.h has them, in order. */
  stepColumns(): { input: Record<string, string>; output: Record<string, string> };
  /** Maps a file read-only: writing to a slice of it ends the process. */
  mapFile(path: string): MappedFile;
  readonly CpuBackend: new (report: NativeReport) => NativeCpuBackend;
  readonly CudaBackend: new (report: NativeReport) => NativeCudaBackend;
}

let loaded: NativeAddon | null = null;

/** The addon; throws KernelError when it is not built or does not load. */
export function loadAddon(): NativeAddon {
  if (loaded) return loaded;
  let addon: NativeAddon;
  try {
    addon = loadNative('kernels') as NativeAddon;
  } catch (error) {
    throw new KernelError(error instanceof Error ? error.message : String(error));
  }
  addon.init(KernelError);
  loaded = addon;
  return addon;
}
