// Finds and loads a native module (kernels.node, os.node): the folder that the command line handed
// down, the local build, a prebuild of the package. Compiling is scripts/build's business.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { packageRoot } from './package-root.ts';

/** Set by scripts/vllm-ts.mjs where the modules were compiled into the user's cache. */
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
  const target = nativeTarget();
  const handedDown = process.env[nativeDirEnv];
  return [
    ...(handedDown === undefined ? [] : [handedDown]),
    join(packageRoot, 'build', target),
    join(packageRoot, 'prebuilds', target),
  ];
}

/** Loads `<name>.node`. Throws an error that says how to build it. */
export function loadNative(name: 'kernels' | 'os'): unknown {
  const file = nativeFolders()
    .map((folder) => join(folder, `${name}.node`))
    .find((path) => existsSync(path));
  if (file === undefined)
    throw new Error(
      `native module ${name}.node for ${nativeTarget()} is missing: run \`npm run build\``,
    );
  return createRequire(import.meta.url)(file);
}
