// What the README says a user can type is typed here: every command of its `sh` blocks, every
// vllm-ts command within its text, and its TypeScript example. `npm ci` and a plain `npm start` are
// test/package/bare-machine.test.ts's.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { flags } from '../../frontend/cli/flags.ts';
import { complete, serve } from './serve.ts';

const readme = readFileSync(join(packageRoot, 'README.md'), 'utf8');
const blocks = (language: string) =>
  [...readme.matchAll(new RegExp('```' + language + '\\n([^]*?)```', 'g'))].map(
    (match) => match[1]!,
  );
const commands = blocks('sh')
  .flatMap((block) => block.trim().split(/\n(?=\S)/))
  .filter((line) => !['npm ci', 'npm start'].includes(line));
const inline = [...readme.matchAll(/`((?:npm start|npx vllm-ts|vllm-ts) [^`]+)`/g)].map(
  (match) => match[1]!,
);

const clients = commands.filter((command) => /^(curl|node) /.test(command));
const starts = [...commands, ...inline].filter((command) => /^np[mx] /.test(command));

t.test('every command is one that a test here knows', (t) => {
  t.same(
    [...commands, ...inline].filter((each) => !clients.includes(each) && !starts.includes(each)),
    [],
  );
  t.ok(clients.length >= 6 && starts.length >= 3, `${clients.length}, ${starts.length}`);
  t.end();
});

t.test('flags, scripts, npm scripts and files are there', (t) => {
  const named = (pattern: RegExp) => [...readme.matchAll(pattern)].map((match) => match[1]!);
  const ofServe = Object.values(flags).map(({ name }) => name);
  const bench = readFileSync(join(packageRoot, 'scripts/bench-serving.mjs'), 'utf8');
  const wrong = named(/(?<![\w-])(--[a-z][a-z-]+)/g).filter(
    (flag) =>
      flag !== '--help' &&
      !ofServe.some((name) => name === flag || name === flag.replace('--', '--no-')) &&
      !bench.includes(flag),
  );
  t.same(wrong, [], 'flags');
  const { scripts } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as {
    scripts: object;
  };
  for (const script of named(/npm run ([\w:]+)/g)) t.ok(script in scripts, script);
  const paths = [
    ...named(/\]\(([\w./-]+?)(?:#[\w-]*)?\)/g),
    ...named(/`((?:[\w-]+\/)+[\w.-]*)`/g).filter((path) => path !== 'vllm-ts/client'),
  ];
  t.ok(paths.length > 12);
  for (const path of paths) t.ok(existsSync(join(packageRoot, path)), path);
  t.end();
});

t.test('what asks a running server', { timeout: 600_000 }, async (t) => {
  const server = await serve(process.execPath, ['scripts/vllm-ts.mjs', 'serve', '--port', '0'], {
    cwd: packageRoot,
    env: process.env,
  });
  t.teardown(() => server.stop());
  for (const command of clients) {
    const here = command
      .replaceAll('http://127.0.0.1:8000', server.url)
      .replace(/^curl/, 'curl -sS --fail-with-body');
    const output = execFileSync('/bin/sh', ['-c', here], { cwd: packageRoot }).toString();
    if (command.includes('"stream": true'))
      t.match(output, /^data: \{.*data: \[DONE\]\n\n$/s, command);
    else if (command.includes('/v1/')) t.notOk('error' in (JSON.parse(output) as object), command);
    else if (command.includes('/metrics')) t.match(output, /vllm:num_requests_running/, command);
    else if (command.startsWith('node')) t.match(output, /^32 streams, median tokens/m, command);
    else t.pass(command);
  }
});

t.test('what starts a server', { timeout: 600_000 }, async (t) => {
  for (const command of starts) {
    const here = command
      .replace('npx vllm-ts', `${process.execPath} scripts/vllm-ts.mjs`)
      .replace('/path/to/model', 'models/demo');
    if (command.includes('--help')) {
      const help = spawnSync('/bin/sh', ['-c', here], { cwd: packageRoot, encoding: 'utf8' });
      t.equal(help.status, 0, command);
      t.match(help.stdout, /--max-num-seqs/, command);
      continue;
    }
    const server = await serve('/bin/sh', ['-c', `exec ${here} --port 0`], {
      cwd: packageRoot,
      env: process.env,
    });
    t.ok((await complete(server.url)).length > 0, command);
    t.equal(await server.stop(), 0, command);
  }
});

t.test('the TypeScript example', { timeout: 300_000 }, (t) => {
  const example = blocks('ts');
  t.equal(example.length, 1);
  const folder = mkdtempSync(join(tmpdir(), 'vllm-ts-readme-'));
  symlinkSync(join(packageRoot, 'node_modules'), join(folder, 'node_modules'));
  const entry = join(packageRoot, 'dist/frontend/index.js');
  const compiler = join(packageRoot, 'node_modules/typescript/lib/tsc.js');
  writeFileSync(join(folder, 'example.mts'), example[0]!.replace("'vllm-ts'", `'${entry}'`));
  const strict = ['--strict', '--noUncheckedIndexedAccess', '--skipLibCheck', '--types', 'node'];
  const options = [...strict, '--target', 'es2022', '--module', 'nodenext', 'example.mts'];
  const compiled = spawnSync(process.execPath, [compiler, ...options], {
    cwd: folder,
    encoding: 'utf8',
  });
  t.equal(compiled.status, 0, compiled.stdout);
  const output = execFileSync(process.execPath, [join(folder, 'example.mjs')], {
    cwd: packageRoot,
  }).toString();
  t.match(output, /[a-z]+ [a-z]+/, 'prints text');
  t.end();
});
