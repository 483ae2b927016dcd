// The C++ compiler that the build takes, for what tests compile themselves.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../../common/package-root.ts';

interface Compiler {
  readonly program: string;
  readonly args: readonly string[];
  readonly version: string;
}

export interface Cxx {
  readonly isGcc: boolean;
  /** Throws what the compiler says where it fails. `cwd`: the checkout's, if not said. */
  compile(args: readonly string[], cwd?: string): void;
}

export async function findCxx(): Promise<Cxx> {
  const url = pathToFileURL(join(packageRoot, 'scripts/build/compiler.mjs')).href;
  const { findCompiler } = (await import(url)) as { readonly findCompiler: () => Compiler };
  const { program, args: first, version } = findCompiler();
  return {
    isGcc: version.includes('Free Software Foundation'),
    compile: (args, cwd = packageRoot) => {
      const run = spawnSync(program, [...first, ...args], { cwd, encoding: 'utf8' });
      if (run.status !== 0) throw new Error(run.stderr);
    },
  };
}
