// The reference backend's face: weights are widened here, steps run in a worker thread.
import { Worker } from 'node:worker_threads';
import { KernelError } from '../../common/errors.ts';
import type { Backend, BackendInfo, BackendLoad, BackendPosition, StepResult } from '../backend.ts';
import { blockBytes } from '../program.ts';
import { checkStepTable } from '../step-table.ts';
import { prepareWeight } from './bind.ts';
import type { ReferenceGroup } from './collectives.ts';
import type { ExecutorLoad } from './executor.ts';

export type ToThread =
  | { readonly kind: 'load'; readonly load: ExecutorLoad; readonly position: Int32Array }
  | {
      readonly kind: 'step';
      readonly step: number;
      readonly body: Uint8Array;
      readonly table: Int32Array;
    };

export type FromThread =
  | { readonly kind: 'loaded' }
  | { readonly kind: 'step'; readonly result: StepResult }
  | {
      readonly kind: 'error';
      readonly message: string;
      readonly step: number | null;
      readonly op: string | null;
    };

export class ReferenceBackend implements Backend {
  readonly name = 'reference';
  onStep: ((result: StepResult) => void) | null = null;
  onError: ((error: Error) => void) | null = null;
  private readonly thread: Worker;
  private readonly shared = new Int32Array(new SharedArrayBuffer(8));
  private loaded: { resolve: () => void; reject: (error: Error) => void } | null = null;
  private hasEnded = false;

  private readonly group: ReferenceGroup | null;

  /** Ranks of one model are threads of one process here, which share the group's memory. */
  constructor(group: ReferenceGroup | null = null) {
    this.group = group;
    this.thread = new Worker(new URL('./reference-thread.js', import.meta.url));
    this.thread.on('message', (message: FromThread) => this.receive(message));
    this.thread.on('error', (error) => this.fail(error));
  }

  async load(load: BackendLoad): Promise<BackendInfo> {
    const { program, blockSize, numBlocks, maxNumSeqs, maxModelLen } = load;
    if (numBlocks === null || load.dummySeed !== null)
      throw new KernelError('the reference backend is told its KV blocks and given its weights');
    if (load.group)
      throw new KernelError('the reference backend has no ranks of several processes');
    const weights = program.weights.map((spec, i) => prepareWeight(spec, load.weights[i]!));
    const poison = load.debugSync;
    const { group } = this;
    const sizes = { blockSize, numBlocks, maxNumSeqs, maxModelLen, poison, group };
    await new Promise<void>((resolve, reject) => {
      this.loaded = { resolve, reject };
      this.post({ kind: 'load', load: { program, weights, ...sizes }, position: this.shared });
    });
    const kvElements = program.kvGroups.map((group) => ({ ...group, dtype: 'f32' as const }));
    const memory = {
      weights: weights.reduce((bytes, weight) => bytes + weight.byteLength, 0),
      kvCache: kvElements.reduce((sum, group) => sum + blockBytes(group, blockSize), 0) * numBlocks,
      activations: program.arenaBytes,
      rowTable: maxNumSeqs * maxModelLen * 4,
    };
    return { device: 'reference (float64, 1 thread)', memory, numBlocks, notes: [] };
  }

  submit(step: number, _numTokens: number, body: Uint8Array, table: Int32Array): void {
    checkStepTable(body, table);
    this.post({ kind: 'step', step, body: body.slice(), table: table.slice() });
  }

  position(): BackendPosition {
    return { step: Atomics.load(this.shared, 0), opIndex: Atomics.load(this.shared, 1) };
  }

  async close(): Promise<void> {
    this.hasEnded = true;
    await this.thread.terminate();
  }

  private post(message: ToThread): void {
    this.thread.postMessage(message);
  }

  private receive(message: FromThread): void {
    if (this.hasEnded) return;
    switch (message.kind) {
      case 'loaded':
        this.loaded?.resolve();
        this.loaded = null;
        return;
      case 'step':
        this.onStep?.(message.result);
        return;
      case 'error':
        this.fail(new KernelError(message.message, message.op, message.step));
        return;
    }
  }

  private fail(error: Error): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    if (this.loaded) this.loaded.reject(error);
    else this.onError?.(error);
  }
}
