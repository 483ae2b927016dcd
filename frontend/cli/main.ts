// The vllm-ts command: parses, serves, and turns whatever is wrong into one line and an exit code.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { StartError } from '../../common/errors.ts';
import { packageRoot } from '../../common/package-root.ts';
import { processTitle } from '../../common/process.ts';
import { parseCommandLine } from './parse.ts';
import { serve } from './serve.ts';

/**
 * `argv` without node and script. What serving needs is prepared once the command line is right;
 * `prepare` returns how many ms of this process's time were not its start. Ends the process.
 */
export async function main(argv: string[], prepare = () => Promise.resolve(0)): Promise<void> {
  try {
    const command = parseCommandLine(argv, packageVersion());
    if (command === null) return;
    const buildMs = await prepare();
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
