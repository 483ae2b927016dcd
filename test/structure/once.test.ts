// What several places need is written once.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const folders = ['common', 'engine', 'frontend', 'detokenizer', 'worker', 'kernels'];

const homes: Readonly<Record<string, RegExp>> = {
  'common/json-object.ts':
    /typeof (\w+) [!=]== 'object'\s*(&&|\|\|)\s*\1 [!=]== null\s*\2\s*!?Array\.isArray/,
  'engine/stop-ids.ts': /ignoreEos( \?|\)| \|\|| &&)/,
};

const sources = folders.flatMap((folder) =>
  readdirSync(join(packageRoot, folder), { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((name) => name.endsWith('.ts')),
);

for (const [home, pattern] of Object.entries(homes))
  t.test(`only ${home} has what it is for`, (t) => {
    const holders = sources.filter((path) =>
      pattern.test(readFileSync(join(packageRoot, path), 'utf8')),
    );
    t.strictSame(holders, [home]);
    t.end();
  });
