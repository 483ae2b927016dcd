// Loads the native addon and says what is in it. The file lies in build/<target>/ of a checkout,
// else in prebuilds/<target>/ of the package, target being <platform>-<arch>[-<libc>].
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KernelError } from '../common/errors.ts';

export interface NativeArg {
  readonly name: string;
  readonly role: string;
  readonly dtype: string;
  /** Symbolic sizes, comma separated. */
  readonly shape: string;
  readonly optional: boolean;
}

export interface NativeOp {
  readonly name: string;
  readonly args: readonly NativeArg[];
  readonly attrs: readonly string[];
}

export interface NativeAddon {
  /** Hands over the class of the errors that native code throws. */
  init(kernelError: typeof KernelError): void;
  /** The op table as kernels/op_table.h has it. */
  opTable(): NativeOp[];
  /** Column names and types as kernels/step.h has them, in order. */
  stepColumns(): { input: Record<string, string>; output: Record<string, string> };
  /** A file's bytes, mapped read-only: writing to the buffer ends the process. */
  mapFile(path: string): ArrayBuffer;
}

/** Root of the package: the nearest folder above this file whose package.json is ours. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string };
      if (name === 'vllm-ts') return folder;
    }
    const parent = dirname(folder);
    if (parent === folder) throw new KernelError('the package root of vllm-ts was not found');
    folder = parent;
  }
}

function isGlibc(): boolean {
  const { header } = process.report.getReport() as { header: Record<string, unknown> };
  return 'glibcVersionRuntime' in header;
}

/** Where an addon file of this platform is, or null. Two libcs are told apart only if both exist. */
function findAddon(root: string, file: string): string | null {
  const prefix = `${process.platform}-${process.arch}`;
  for (const folder of ['build', 'prebuilds']) {
    const path = join(root, folder);
    if (!existsSync(path)) continue;
    const targets = readdirSync(path).filter(
      (name) =>
        (name === prefix || name.startsWith(`${prefix}-`)) && existsSync(join(path, name, file)),
    );
    const target =
      targets.length > 1 ? `${prefix}-${isGlibc() ? 'glibc' : 'musl'}` : (targets[0] ?? null);
    if (target !== null && targets.includes(target)) return join(path, target, file);
  }
  return null;
}

let loaded: NativeAddon | null = null;

/** The addon; throws KernelError when it is not built or does not load. */
export function loadAddon(): NativeAddon {
  if (loaded) return loaded;
  const root = packageRoot();
  const path = findAddon(root, 'kernels.node');
  if (path === null)
    throw new KernelError(
      `kernels.node for ${process.platform}-${process.arch} was not found under ${root}: run \`npm run build\``,
    );
  let addon: NativeAddon;
  try {
    addon = createRequire(import.meta.url)(path) as NativeAddon;
  } catch (error) {
    throw new KernelError(
      `${path} does not load (${error instanceof Error ? error.message : String(error)}): run \`npm run build\``,
    );
  }
  addon.init(KernelError);
  loaded = addon;
  return addon;
}
