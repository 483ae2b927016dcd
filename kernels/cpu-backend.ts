// The CPU backend: the Backend interface over the addon's CpuBackend. What it computes lies in
// kernels/cpu.
import { KernelError } from '../common/errors.ts';
import { loadAddon, type NativeCpuBackend } from './addon.ts';
import type { Backend, BackendInfo, BackendLoad } from './backend.ts';
import { NativeBackend } from './native-backend.ts';

/** Variants in rising preference; '' is the best that this machine runs. */
export type CpuVariant = '' | 'portable' | 'avx2' | 'avx512';

export class CpuBackend extends NativeBackend<NativeCpuBackend> {
  readonly name = 'cpu';
  readonly #variant: CpuVariant;

  constructor(variant: CpuVariant = '') {
    super((report) => new (loadAddon().CpuBackend)(report));
    this.#variant = variant;
  }

  async load(load: BackendLoad): Promise<BackendInfo> {
    const { program, numThreads, numBlocks } = load;
    if (program.actDtype !== 'f32')
      throw new KernelError(`the cpu backend computes in f32, not in ${program.actDtype}`);
    if (numBlocks === null || load.dummySeed !== null)
      throw new KernelError('the cpu backend is told its KV blocks and given its weights');
    const { variant, memory } = await this.native.load({
      ...this.nativeLoad(load),
      numBlocks,
      numThreads,
      ...(load.group && { group: load.group }),
      variant: this.#variant,
    });
    const threads = `${numThreads} ${numThreads === 1 ? 'thread' : 'threads'}`;
    return { device: `cpu (${variant}, ${threads})`, memory, numBlocks, notes: [] };
  }
}

export async function createCpuBackend(): Promise<Backend> {
  return Promise.resolve(new CpuBackend());
}
