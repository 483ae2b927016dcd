// What a backend is: it takes a program with its weights once, then runs steps. All backends
// (reference, cpu, cuda) have this face; the worker process knows nothing else of them.
import type { StepOutputColumns } from '../common/wire/step.ts';
import type { Dtype, Program } from './program.ts';

export type BackendName = 'reference' | 'cpu' | 'cuda';

/**
 * Rows of one checkpoint tensor, or a range of their columns, as raw little-endian bytes, usually a
 * view of a mapped file, at any alignment.
 */
export interface WeightPart {
  readonly dtype: Dtype;
  readonly numRows: number;
  /** 1 for a one-dimensional tensor. Columns that the weight has beyond them are zeros. */
  readonly numColumns: number;
  /** From the begin of a row to that of the next, where rows are not back to back. */
  readonly rowBytes?: number;
  /** Ends with the last element of the last row. */
  readonly data: Uint8Array;
}

/** The ranks that run one model together, each its part of it. */
export interface RankGroup {
  readonly rank: number;
  readonly numRanks: number;
  /** Where ranks of one host meet: a path that does not exist yet, the same for all. */
  readonly path: string;
  /** A rank that others wait for is lost if it runs no op for so long. */
  readonly timeoutMs: number;
  /** Which of the ranks on its host this is, and of how many; absent where all are on one. */
  readonly local?: { readonly rank: number; readonly numRanks: number };
  /** Present where the ranks are on several hosts: they meet over TCP then. */
  readonly network?: RankNetwork;
}

export interface RankNetwork {
  /** host:port at which each rank listens, numeric. */
  readonly addresses: readonly string[];
  /** [numRanks][2][32]: what this rank shows to each other, and what it expects of it. */
  readonly shownTokens: Uint8Array;
  readonly expectedTokens: Uint8Array;
}

export interface BackendLoad {
  readonly program: Program;
  /** weights[i] are the parts of program.weights[i], in order; the backend copies what it keeps. */
  readonly weights: readonly (readonly WeightPart[])[];
  /** Seed of random weights that the backend makes itself (cuda alone); null: `weights` it is. */
  readonly dummySeed: number | null;
  readonly blockSize: number;
  /**
   * Blocks of each KV group; block 0 is the null block. null (cuda alone): what kvCacheMemoryBytes
   * holds, or if that is null too, what memoryUtilization of the whole device leaves.
   */
  readonly numBlocks: number | null;
  readonly kvCacheMemoryBytes: number | null;
  /** (0, 1] */
  readonly memoryUtilization: number;
  /** Where the backend decides: fewer blocks than a row of maxModelLen fills will do. */
  readonly fitModelLen: boolean;
  /** Rows of the row table. */
  readonly maxNumSeqs: number;
  readonly maxModelLen: number;
  /** Alternatives that a row may ask for: what room is made for, where a backend makes room. */
  readonly maxLogprobs: number;
  readonly numThreads: number;
  readonly asyncDepth: number;
  readonly fastMath: boolean;
  /** Absent where one rank runs the whole model. */
  readonly group?: RankGroup;
  /** Queue every step op by op, also where a backend has graphs of some. */
  readonly enforceEager: boolean;
  /** Report op, file and line of a failure; slower. */
  readonly debugSync: boolean;
}

export interface BackendInfo {
  /** For the ready line: "cpu (avx2, 2 threads)". */
  readonly device: string;
  /** owner -> bytes */
  readonly memory: Readonly<Record<string, number>>;
  /** The null block included. */
  readonly numBlocks: number;
  /** Lines for the log: choices that the backend made. */
  readonly notes: readonly string[];
}

export interface StepResult {
  readonly step: number;
  readonly hash: number;
  readonly startUs: number;
  readonly endUs: number;
  /** From the end of the step before, on the device, to this one's start; 0 for the first. */
  readonly deviceIdleUs: number;
  /** Valid for the receiver to keep: the backend does not reuse them. */
  readonly columns: StepOutputColumns;
}

/** Where the device is: op opIndex of `step`; read at any time without waiting. */
export interface BackendPosition {
  readonly step: number;
  readonly opIndex: number;
}

export interface Backend {
  readonly name: BackendName;
  load(load: BackendLoad): Promise<BackendInfo>;
  /**
   * Queues a step and returns at once; at most asyncDepth + 1 are in flight. `body` is StepInput's
   * body frame and `table` two numbers (byte offset, element count) for each of stepInputColumns,
   * in their order; both are copied or kept alive, never written. A bad table throws KernelError
   * (checkStepTable of kernels/step-table.ts).
   */
  submit(step: number, numTokens: number, body: Uint8Array, table: Int32Array): void;
  /** Steps report in order. After onError nothing more is reported. */
  onStep: ((result: StepResult) => void) | null;
  onError: ((error: Error) => void) | null;
  position(): BackendPosition;
  close(): Promise<void>;
}
