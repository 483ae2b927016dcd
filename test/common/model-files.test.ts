// The small files of a model folder, damaged in every way that a seeded generator thinks of: they
// load, or the error is a StartError that names the file, and nothing stands still.
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { StartError } from '../../common/errors.ts';
import { readModelConfig } from '../../common/model-config.ts';
import { InlineText } from '../../common/text/text-calls.ts';
import { defaultTextLimits } from '../../common/limits.ts';
import { sentencePieceTokenizer } from './text/support.ts';

let state = 7;
const below = (n: number) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % n;
const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;

const odd: readonly unknown[] = [
  null,
  true,
  -1,
  0,
  1.5,
  1e308,
  2 ** 53,
  '',
  'x',
  '▁',
  '\ud800',
  [],
  [null],
  [[]],
  {},
  { a: null },
  { type: 'Sequence', decoders: [null] },
  { content: 5 },
];

type Container = Record<string, unknown>;

/** Puts something odd in a random place, or takes something out. */
function damage(root: unknown): void {
  let at = root as Container;
  for (;;) {
    const keys = Object.keys(at);
    if (keys.length === 0) return;
    const key = pick(keys);
    const inner = at[key];
    if (typeof inner === 'object' && inner !== null && below(4) > 0) {
      at = inner as Container;
      continue;
    }
    if (below(5) === 0 && !Array.isArray(at)) Reflect.deleteProperty(at, key);
    else at[key] = structuredClone<unknown>(pick(odd));
    return;
  }
}

function tryToLoad(folder: string): Error | null {
  try {
    readModelConfig(folder);
    const options = { tokenizerPath: folder, chatTemplatePath: null, maxModelLen: 100 };
    new InlineText({ ...options, textLimits: defaultTextLimits }).tokenizer.prepare();
    return null;
  } catch (error) {
    return error as Error;
  }
}

const fixture = 'test/fixtures/models/qwen3';
const files: Readonly<Record<string, unknown>> = {
  'config.json': JSON.parse(readFileSync(join(fixture, 'config.json'), 'utf8')) as unknown,
  'generation_config.json': { eos_token_id: [2, 3], temperature: 1 },
  'tokenizer.json': sentencePieceTokenizer(),
  'tokenizer_config.json': {
    bos_token: '<s>',
    eos_token: { content: '</s>', special: true },
    additional_special_tokens: ['<s>', { content: '</s>' }],
    added_tokens_decoder: { 1: { content: '<s>', special: true } },
    chat_template: [{ name: 'default', template: '{{ messages }}' }],
  },
};

t.test('a damaged file is a StartError that names it', (t) => {
  const folder = t.testdir({});
  const write = (name: string, value: unknown) =>
    writeFileSync(join(folder, name), JSON.stringify(value));
  for (const [name, value] of Object.entries(files)) write(name, value);
  t.equal(tryToLoad(folder), null, 'whole');
  const unfit: string[] = [];
  let refused = 0;
  for (const [name, value] of Object.entries(files)) {
    for (let round = 0; round < 200; round++) {
      const damaged = structuredClone<unknown>(value);
      for (let k = below(3); k >= 0; k--) damage(damaged);
      write(name, damaged);
      const error = tryToLoad(folder);
      if (error === null) continue;
      refused++;
      if (!(error instanceof StartError && error.exitCode === 65 && error.message.includes(name)))
        unfit.push(`${name} ${JSON.stringify(damaged).slice(0, 300)}: ${String(error.stack)}`);
    }
    write(name, value);
  }
  t.same(unfit.slice(0, 3), []);
  t.ok(refused > 100, `${refused} were refused`);
  t.end();
});

t.test('bytes that are no text, cut files and bombs', (t) => {
  const folder = t.testdir({});
  cpSync('models/demo', folder, { recursive: true });
  for (const name of ['config.json', 'generation_config.json', 'tokenizer.json']) {
    const whole = readFileSync(join(folder, name));
    const deep = Buffer.from('{"a":' + '['.repeat(1e6));
    const invalid = Buffer.from([...Buffer.from('{"a":"'), 0xff, ...Buffer.from('"}')]);
    for (const [bytes, message] of [
      [whole.subarray(0, whole.length / 2), 'it is not JSON'],
      [invalid, 'it is not UTF-8'],
      [deep, 'it is nested deeper than 64 levels'],
      [Buffer.from('7'), 'it is not a JSON object'],
    ] as const) {
      writeFileSync(join(folder, name), bytes);
      const error = tryToLoad(folder);
      t.match(error, { exitCode: 65, message: `${join(folder, name)}: ${message}` });
    }
    writeFileSync(join(folder, name), whole);
  }
  t.end();
});

t.test('a named pipe is no file', (t) => {
  const folder = t.testdir({});
  cpSync('models/demo', folder, { recursive: true });
  for (const name of ['chat_template.jinja', 'tokenizer_config.json', 'tokenizer.json']) {
    rmSync(join(folder, name), { force: true });
    execFileSync('mkfifo', [join(folder, name)]);
    t.match(tryToLoad(folder), { exitCode: 65, message: `${join(folder, name)} is not a file` });
    rmSync(join(folder, name));
    cpSync('models/demo', folder, { recursive: true });
  }
  t.end();
});

t.test('a template that does not parse is named by its file', (t) => {
  const folder = t.testdir({});
  cpSync('models/demo', folder, { recursive: true });
  const config = join(folder, 'tokenizer_config.json');
  writeFileSync(config, JSON.stringify({ chat_template: '{% for %}' }));
  t.match(tryToLoad(folder), { message: `${config}: the chat template does not parse` });
  const own = join(folder, 'chat_template.jinja');
  writeFileSync(own, '{{ a b');
  t.match(tryToLoad(folder), { message: `${own}: the chat template does not parse` });
  t.end();
});
