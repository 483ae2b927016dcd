// The vllm-ts command: parses, serves, and turns whatever is wrong into one line and an exit code.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { StartError } from '../../common/errors.ts';
import { packageRoot } from '../../common/package-root.ts';
import { processTitle } from '../../common/process.ts';
import { parseCommandLine } from './parse.ts';
import { serve } from './serve.ts';

/** `argv` without node and script; what was built before this took `buildMs`. Ends the process. */
export async function main(argv: string[], buildMs = 0): Promise<void> {
  try {
    const command = parseCommandLine(argv, packageVersion());
    if (command === null) return;
    process.title = processTitle('supervisor', 0);
    process.exit(await serve(command, buildMs));
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    process.stderr.write(`vllm-ts: ${error.message}\n`);
    process.exit(error.exitCode);
  }
}

function packageVersion(): string {
  const file = readFileSync(join(packageRoot, 'package.json'), 'utf8');
  return (JSON.parse(file) as { version: string }).version;
}
