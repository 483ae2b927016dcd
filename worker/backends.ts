// The device of --device to a backend.
import type { WorkerSlice } from '../common/config.ts';
import { exitCodes, StartError } from '../common/errors.ts';
import type { Backend } from '../kernels/backend.ts';
import { ReferenceBackend } from '../kernels/reference/reference-backend.ts';

/** Throws StartError for a device that is not built. */
export function createBackend(device: WorkerSlice['device']): Promise<Backend> {
  switch (device) {
    case 'reference':
      return Promise.resolve(new ReferenceBackend());
    case 'cpu':
    case 'cuda':
      throw new StartError(
        exitCodes.badFlag,
        `--device ${device} is not built yet; supported: reference`,
      );
  }
}
