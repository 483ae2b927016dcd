// build/arguments.mjs for compiled scripts, which find it in the package.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { parseArgs, ParseArgsConfig } from 'node:util';
import { packageRoot } from '../common/package-root.ts';

interface Arguments {
  readonly readArguments: <T extends ParseArgsConfig>(
    name: string,
    url: string,
    config?: T,
  ) => ReturnType<typeof parseArgs<T>>;
  readonly readNumber: (
    name: string,
    what: string,
    text: string,
    rule?: { readonly whole: boolean },
  ) => number;
  readonly readNumbers: (name: string, url: string, names: readonly string[]) => number[];
  readonly refuse: (name: string, message: string) => never;
}

const url = pathToFileURL(join(packageRoot, 'scripts/build/arguments.mjs')).href;
export const { readArguments, readNumber, readNumbers, refuse } = (await import(url)) as Arguments;
