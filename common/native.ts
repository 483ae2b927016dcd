// Finds and loads a native module (kernels.node, os.node): in the folder that the command line
// handed down, else in the local build or a prebuild of the package. Compiling is scripts/build's
// business.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { packageRoot } from './package-root.ts';

/** Set by scripts/vllm-ts.mjs, which knows: the build, the package's own, or the user's cache. */
export const nativeDirEnv = 'VLLM_TS_NATIVE_DIR';

/** linux-x64-glibc, darwin-arm64, ...: the folder name of native files. */
export function nativeTarget(): string {
  const { platform, arch } = process;
  if (platform !== 'linux') return `${platform}-${arch}`;
  const report = process.report.getReport() as unknown as { header: Record<string, unknown> };
  return `${platform}-${arch}-${'glibcVersionRuntime' in report.header ? 'glibc' : 'musl'}`;
}

/** Folders that may hold native files, in order of preference. */
export function nativeFolders(): string[] {
  const handedDown = process.env[nativeDirEnv];
  // Asking which libc this is takes milliseconds: only where nobody has said.
  if (handedDown !== undefined) return [handedDown];
  const target = nativeTarget();
  return ['build', 'prebuilds'].map((folder) => join(packageRoot, folder, target));
}

/** A folder that holds libvt_cuda.so, before all others. */
export const cudaDirEnv = 'VLLM_TS_CUDA_DIR';

/** Folders that may hold libvt_cuda.so: it is never compiled into the user's cache. */
export function cudaFolders(): string[] {
  const first = [process.env[cudaDirEnv], process.env[nativeDirEnv]].filter(
    (folder) => folder !== undefined,
  );
  const handedDown = process.env[nativeDirEnv];
  // The folder that was handed down is named by the target.
  const target = handedDown === undefined ? nativeTarget() : basename(handedDown);
  return [...first, ...['build', 'prebuilds'].map((folder) => join(packageRoot, folder, target))];
}

/** Loads `<name>.node`. Throws an error that says how to build it. */
export function loadNative(name: 'kernels' | 'os'): unknown {
  const folders = nativeFolders();
  const file = folders
    .map((folder) => join(folder, `${name}.node`))
    .find((path) => existsSync(path));
  if (file === undefined)
    throw new Error(
      `native module ${name}.node for ${nativeTarget()} is missing in ${folders.join(' and ')}: run \`npm run build\``,
    );
  return createRequire(import.meta.url)(file);
}
