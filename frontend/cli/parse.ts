// The command line, read by commander from the table of flags. Whatever is wrong becomes a
// StartError that names the flag and the nearest right one; nothing is printed here but help.
import { Command, CommanderError, Option } from 'commander';
import { exitCodes, StartError } from '../../common/errors.ts';
import type { Flag } from './flag.ts';
import { flags, type Flags } from './flags.ts';
import { noEffect, type NoEffect } from './no-effect.ts';
import { notBuilt, saidOtherwise } from './not-built.ts';
import { nearest } from './values.ts';

export interface ServeCommand {
  /** null = the demo model. */
  readonly model: string | null;
  readonly flags: Flags;
  /** What was said and changes nothing, a line each. */
  readonly remarks: readonly string[];
}

const table = Object.entries(flags) as [keyof Flags, Flag<unknown>][];

/** Null if help or the version was asked for and printed. Throws StartError (64). */
export function parseCommandLine(argv: readonly string[], version: string): ServeCommand | null {
  let parsed: ServeCommand | null = null;
  const program = new Command('vllm-ts')
    .description('LLM inference and serving engine')
    .version(version, '-v, --version');
  const serve = program
    .command('serve')
    .description('serve a model through an OpenAI-compatible HTTP server')
    .argument('[MODEL]', 'Hugging Face folder (default: the demo model that comes along)')
    .allowExcessArguments(false)
    .action((model: string | undefined) => {
      refuseAlone(serve);
      parsed = { model: model ?? null, flags: readFlags(serve), remarks: remarksOf(serve) };
    });
  for (const [, flag] of table) for (const option of optionsOf(flag)) serve.addOption(option);
  for (const [name, it] of noEffect) serve.addOption(optionOf(name, it));
  for (const command of [program, serve])
    command.exitOverride().configureOutput({ writeErr: () => undefined });

  const args = argv.map(withDashes);
  refuseNotBuilt(args);
  if (args.length === 0) throw badFlag('no command given. vllm-ts serve [MODEL] starts a server');
  try {
    program.parse(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return null;
    throw badFlag(reword(error, args));
  }
  return parsed;
}

function optionsOf(flag: Flag<unknown>): Option[] {
  if (flag.value === null) {
    const off = new Option(flag.name.replace('--', '--no-'));
    return [
      new Option(flag.name, flag.help).default(flag.default),
      flag.default === true ? off : off.hideHelp(),
    ];
  }
  const option = new Option(`${flag.name} ${flag.value}`, flag.help).argParser(
    (text: string, previous: unknown) => flag.parse(text, previous),
  );
  const isShown = typeof flag.default === 'number' || typeof flag.default === 'string';
  return [isShown ? option.default(flag.default) : option];
}

function optionOf(name: string, { check }: NoEffect): Option {
  if (check === null) return new Option(name).hideHelp();
  const option = new Option(`${name} <value>`).hideHelp();
  return option.argParser((text: string) => {
    check(text);
    return text;
  });
}

/** What was given of those that have no effect, and why they have none. */
function remarksOf(serve: Command): string[] {
  const isAsGiven = (name: string) => {
    const isOff = serve.getOptionValue(flagKey(name.replace('--no-', '--'))) === false;
    return isGiven(serve, name.replace('--no-', '--')) && isOff === name.startsWith('--no-');
  };
  return [...noEffect]
    .filter(([name]) => isAsGiven(name))
    .map(([name, { why }]) => `${name} changes nothing here: ${why}`);
}

/** What is said of several hosts, where nobody said how many, would be taken in silence. */
function refuseAlone(serve: Command): void {
  const { nnodes, nodeRank, masterAddr, masterPort, nodeKeyFile, nodeTimeout } = flags;
  if (isGiven(serve, nnodes.name)) return;
  for (const { name } of [nodeRank, masterAddr, masterPort, nodeKeyFile, nodeTimeout])
    if (isGiven(serve, name)) throw badFlag(`${name} needs ${nnodes.name}, the number of hosts`);
}

const isGiven = (serve: Command, name: string) =>
  serve.getOptionValueSource(flagKey(name)) === 'cli';

/** commander names a value by its flag in camel case, as the table does. */
function readFlags(serve: Command): Flags {
  const given = serve.opts<Record<string, unknown>>();
  const read = Object.fromEntries(
    table.map(([key, flag]) => [key, given[flagKey(flag.name)] ?? flag.default]),
  );
  return Object.freeze(read) as Flags;
}

const flagKey = (name: string) =>
  name.slice(2).replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** Short names of vLLM that have more letters than commander reads. */
const shortNames: ReadonlyMap<string, string> = new Map([
  ['-tp', '--tensor-parallel-size'],
  ['-pp', '--pipeline-parallel-size'],
  ['-dp', '--data-parallel-size'],
  ['-dcp', '--decode-context-parallel-size'],
  ['-pcp', '--prefill-context-parallel-size'],
  ['-n', '--nnodes'],
  ['-r', '--node-rank'],
]);

/** vLLM takes --max_model_len as well, -tp and -O3, which commander does not. */
function withDashes(arg: string): string {
  if (/^-O\d/.test(arg)) return arg.replace('-O', '-O=');
  if (!arg.startsWith('-')) return arg;
  const [name = '', ...value] = arg.split('=');
  const long = shortNames.get(name) ?? (name.startsWith('--') ? name.replaceAll('_', '-') : name);
  return [long, ...value].join('=');
}

function refuseNotBuilt(args: readonly string[]): void {
  for (const name of args.map((arg) => arg.split('=')[0]!)) {
    const why = saidOtherwise.get(name);
    if (why !== undefined) throw badFlag(`${name}: ${why}`);
    if (notBuilt.has(name)) throw badFlag(`${name}: vllm-ts does not have this flag of vLLM yet`);
  }
}

function badFlag(message: string): StartError {
  return new StartError(exitCodes.badFlag, message);
}

/** commander's message, with the flag first and our own hint. */
function reword(error: CommanderError, args: readonly string[]): string {
  const message = error.message.replace(/^error: /, '').split('\n')[0]!;
  if (error.code === 'commander.unknownOption') {
    const name = /'([^'=]*)/.exec(message)?.[1] ?? '';
    const flags = table.map(([, flag]) => flag);
    const isSwitch = flags.some(
      (it) => it.value === null && it.name === name.replace(/^--no-/, '--'),
    );
    if (isSwitch || noEffect.get(name)?.check === null) return `${name}: it takes no value`;
    const near = hint(
      name,
      flags.map((flag) => flag.name),
    );
    return `unknown flag ${name}${near}`;
  }
  if (error.code === 'commander.unknownCommand') {
    const [name = ''] = args;
    if (otherCommands.has(name)) return `${name}: vllm-ts does not have this command of vLLM yet`;
    return `unknown command ${name}${hint(name, ['serve'])}`;
  }
  if (error.code === 'commander.excessArguments') return 'more than one MODEL is given';
  if (error.code === 'commander.optionMissingArgument')
    return `${/'(--[\w-]+)/.exec(message)?.[1] ?? 'a flag'}: its value is missing`;
  const invalid = /^option '(--[\w-]+).*?' argument '.*?' is invalid\. (.*)$/s.exec(message);
  return invalid ? `${invalid[1]!}: ${invalid[2]!}` : message;
}

/** Commands of vLLM beside serve. */
const otherCommands: ReadonlySet<string> = new Set(
  'chat complete bench run-batch collect-env launch'.split(' '),
);

function hint(name: string, candidates: readonly string[]): string {
  const near = nearest(name, candidates);
  return near === null ? '' : `. Did you mean ${near}?`;
}
