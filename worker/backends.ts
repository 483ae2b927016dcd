// The device of --device to a backend.
import type { WorkerSlice } from '../common/config.ts';
import type { Backend } from '../kernels/backend.ts';
import { createCpuBackend } from '../kernels/cpu-backend.ts';
import { CudaBackend } from '../kernels/cuda-backend.ts';
import { ReferenceBackend } from '../kernels/reference/reference-backend.ts';

export async function createBackend(device: WorkerSlice['device']): Promise<Backend> {
  switch (device) {
    case 'reference':
      return new ReferenceBackend();
    case 'cpu':
      return await createCpuBackend();
    case 'cuda':
      return new CudaBackend();
  }
}
