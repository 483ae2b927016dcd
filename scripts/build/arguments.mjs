// The arguments of a script: what is wrong with them is one line and exit code 64, and --help prints
// the comment at the script's head. Compiled scripts take it from ../arguments.ts.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** What parseArgs gives, for the script at `url`; `name` stands before an error. */
export function readArguments(name, url, config = {}) {
  let found;
  try {
    found = parseArgs({ ...config, options: { ...config.options, help: { type: 'boolean' } } });
  } catch (error) {
    refuse(name, error.message);
  }
  if (!found.values.help) return found;
  const lines = readFileSync(fileURLToPath(url), 'utf8').split('\n');
  const head = lines.slice(0, lines.findIndex((line) => !line.startsWith('//')));
  console.log(head.map((line) => line.replace(/^\/\/ ?/, '')).join('\n'));
  process.exit(0);
}

/** `text` as a number above 0; `what` it is stands in the error. `whole`: without a fraction. */
export function readNumber(name, what, text, { whole = true } = {}) {
  const number = /^\d{1,9}(\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (number > 0 && (!whole || Number.isInteger(number))) return number;
  return refuse(name, `${what}: ${text} is not a positive ${whole ? 'whole ' : ''}number`);
}

/** Numbers without flags, as `names` calls them; those at the end may be missing. */
export function readNumbers(name, url, names) {
  const { positionals } = readArguments(name, url, { allowPositionals: true });
  if (positionals.length > names.length)
    refuse(name, `${positionals[names.length]}: one argument too many`);
  return positionals.map((text, i) => readNumber(name, names[i], text));
}

/** One line, and the process ends. */
export function refuse(name, message) {
  console.error(`${name}: ${message}`);
  process.exit(64);
}
