// The CUDA backend: the Backend interface over the addon's CudaBackend, which opens libvt_cuda.so.
// What it computes lies in kernels/cuda.
import { KernelError } from '../common/errors.ts';
import { cudaFolders } from '../common/native.ts';
import { loadAddon, type NativeCudaBackend, type NativeCudaGroup } from './addon.ts';
import type { BackendInfo, BackendLoad, RankGroup } from './backend.ts';
import { NativeBackend } from './native-backend.ts';
import { blockBytes } from './program.ts';

/** Folders that may hold cuBLASLt and NCCL, ':' between. */
export const cudaLibsEnv = 'VLLM_TS_CUDA_LIBS';

/**
 * Who carries the collectives of ranks: our own kernels (peer) or NCCL; auto: see the docs. shared: our
 * own kernels, and ranks may have the same GPU.
 */
const collectivesEnv = 'VLLM_TS_CUDA_COLLECTIVES';
const carriers = ['auto', 'peer', 'nccl', 'shared'];

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
      fitModelLen: load.fitModelLen,
      fastMath: load.fastMath,
      enforceEager: load.enforceEager,
      ...(load.group && { group: nativeGroup(load.group) }),
      folders: cudaFolders(),
      libraryPath: process.env[cudaLibsEnv] ?? '',
    });
    return { device, memory, numBlocks, notes: notes.split('\n').filter((line) => line !== '') };
  }
}

function nativeGroup(group: RankGroup): NativeCudaGroup {
  const { rank, numRanks, local = { rank, numRanks } } = group;
  const collectives = process.env[collectivesEnv] ?? '';
  if (collectives !== '' && !carriers.includes(collectives))
    throw new KernelError(
      `${collectivesEnv}: '${collectives}' is not one of ${carriers.join(', ')}`,
    );
  return {
    ...group,
    localRank: local.rank,
    numLocalRanks: local.numRanks,
    collectives: collectives || 'auto',
  };
}
