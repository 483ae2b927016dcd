// The device of --device to a backend.
import type { WorkerSlice } from '../common/config.ts';
import { exitCodes, StartError } from '../common/errors.ts';
import type { Backend } from '../kernels/backend.ts';
import { createCpuBackend } from '../kernels/cpu-backend.ts';
import { ReferenceBackend } from '../kernels/reference/reference-backend.ts';

/** Throws StartError for a device that is not built. */
export async function createBackend(device: WorkerSlice['device']): Promise<Backend> {
  switch (device) {
    case 'reference':
      return new ReferenceBackend();
    case 'cpu':
      return await createCpuBackend();
    case 'cuda':
      throw new StartError(
        exitCodes.badFlag,
        '--device cuda is not built yet; supported: cpu, reference',
      );
  }
}
