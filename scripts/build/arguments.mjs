// The arguments of a script: what is wrong with them is one line and exit code 64, and --help prints
// the comment at the script's head.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** What parseArgs gives, for the script at `url`; `name` stands before an error. */
export function readArguments(name, url, config) {
  let found;
  try {
    found = parseArgs({ ...config, options: { ...config.options, help: { type: 'boolean' } } });
  } catch (error) {
    console.error(`${name}: ${error.message}`);
    process.exit(64);
  }
  if (!found.values.help) return found;
  const lines = readFileSync(fileURLToPath(url), 'utf8').split('\n');
  const head = lines.slice(0, lines.findIndex((line) => !line.startsWith('//')));
  console.log(head.map((line) => line.replace(/^\/\/ ?/, '')).join('\n'));
  process.exit(0);
}
