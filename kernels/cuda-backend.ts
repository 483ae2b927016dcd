// The CUDA backend: the Backend interface over the addon's CudaBackend, which opens libvt_cuda.so.
// What it computes lies in kernels/cuda.
import { KernelError } from '../common/errors.ts';
import { cudaFolders } from '../common/native.ts';
import { loadAddon, type NativeCudaBackend } from './addon.ts';
import type { BackendInfo, BackendLoad } from './backend.ts';
import { NativeBackend } from './native-backend.ts';
import { blockBytes } from './program.ts';

/** Folders that may hold cuBLASLt, ':' between. */
export const cudaLibsEnv = 'VLLM_TS_CUDA_LIBS';

export class CudaBackend extends NativeBackend<NativeCudaBackend> {
  readonly name = 'cuda';

  constructor() {
    super((report) => new (loadAddon().CudaBackend)(report));
  }

  async load(load: BackendLoad): Promise<BackendInfo> {
    const { program, blockSize, dummySeed } = load;
    if (program.actDtype !== 'f16' && program.actDtype !== 'bf16')
      throw new KernelError(`the cuda backend computes in f16 or bf16, not in ${program.actDtype}`);
    const bytesPerBlock = program.kvGroups.reduce((sum, g) => sum + blockBytes(g, blockSize), 0);
    const wantedBytes =
      load.numBlocks === null ? load.kvCacheMemoryBytes : load.numBlocks * bytesPerBlock;
    const { device, notes, numBlocks, memory } = await this.native.load({
      ...this.nativeLoad(load),
      dummySeed: dummySeed ?? -1,
      kvCacheMemoryBytes: wantedBytes ?? 0,
      memoryUtilization: load.memoryUtilization,
      fastMath: load.fastMath,
      ...(load.group && { group: load.group }),
      folders: cudaFolders(),
      libraryPath: process.env[cudaLibsEnv] ?? '',
    });
    return { device, memory, numBlocks, notes: notes.split('\n').filter((line) => line !== '') };
  }
}
