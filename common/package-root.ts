// Where the package lies, from a module in dist/ as well as from a bundle.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

function find(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (existsSync(file)) {
      const { name } = JSON.parse(readFileSync(file, 'utf8')) as { name?: string };
      if (name === 'vllm-ts') return folder;
    }
    if (folder === dirname(folder)) throw new Error('package.json of vllm-ts not found');
  }
}

/** Absolute path of the package's folder. */
export const packageRoot: string = find();

/** "version" of package.json. */
export const packageVersion: string = (
  JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }
).version;
