// Builds everything that is stale: TypeScript (tsc, then a bundle for each process), then the
// native modules with the C++ compiler. `npm run build`.
import { fileURLToPath } from 'node:url';
import { readArguments } from './build/arguments.mjs';
import { BuildError, buildNative } from './build/native.mjs';
import { createReport } from './build/progress.mjs';
import { buildTypescript } from './build/typescript.mjs';

readArguments('build', import.meta.url);
const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const report = createReport('build: ');

try {
  await buildTypescript({ root, report });
  await buildNative({ root, report });
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`build: ${error.message}`);
  process.exit(1);
}
