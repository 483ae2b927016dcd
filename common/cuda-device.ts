// Which GPU this machine has for the cuda backend, asked through the native addon: the command line
// needs to know before a worker runs. Loads no kernels; the driver is initialised only where it is
// installed.
import { cudaFolders, loadNative } from './native.ts';

export interface CudaDevice {
  readonly name: string;
  readonly computeMajor: number;
  readonly computeMinor: number;
  /** As the driver says it: 13000. */
  readonly driverVersion: number;
  readonly totalBytes: number;
}

/** The device, or in a line for the user why there is none. */
export type CudaAnswer =
  { readonly device: CudaDevice } | { readonly device: null; readonly reason: string };

export async function findCudaDevice(): Promise<CudaAnswer> {
  try {
    const addon = loadNative('kernels') as {
      cudaDevice(folders: readonly string[]): Promise<CudaDevice>;
    };
    return { device: await addon.cudaDevice(cudaFolders()) };
  } catch (error) {
    return { device: null, reason: error instanceof Error ? error.message : String(error) };
  }
}
