// What the README says a user can type is typed here: every curl of its `sh` blocks against a
// running server, and its TypeScript example.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { serve } from './serve.ts';

const readme = readFileSync(join(packageRoot, 'README.md'), 'utf8');
const blocks = (language: string) =>
  [...readme.matchAll(new RegExp('```' + language + '\\n([^]*?)```', 'g'))].map(
    (match) => match[1]!,
  );

t.test('the curl lines of the README', { timeout: 300_000 }, async (t) => {
  const commands = blocks('sh')
    .flatMap((block) => block.split(/\n(?=\S)/))
    .filter((line) => line.startsWith('curl'));
  t.ok(commands.length >= 5, `${commands.length} commands`);
  const server = await serve(process.execPath, ['scripts/vllm-ts.mjs', 'serve', '--port', '0'], {
    cwd: packageRoot,
    env: process.env,
  });
  t.teardown(() => server.stop());
  for (const command of commands) {
    const here = command
      .replaceAll('http://127.0.0.1:8000', server.url)
      .replace('curl', 'curl -sS --fail-with-body');
    const output = execFileSync('/bin/sh', ['-c', here]).toString();
    if (command.includes('"stream": true'))
      t.match(output, /^data: \{.*data: \[DONE\]\n\n$/s, command);
    else if (command.includes('/v1/')) t.notOk('error' in (JSON.parse(output) as object), command);
    else if (command.includes('/metrics')) t.match(output, /vllm:num_requests_running/, command);
    else t.pass(command);
  }
});

t.test('the TypeScript example of the README', { timeout: 300_000 }, (t) => {
  const example = blocks('ts');
  t.equal(example.length, 1);
  const folder = mkdtempSync(join(tmpdir(), 'vllm-ts-readme-'));
  symlinkSync(join(packageRoot, 'node_modules'), join(folder, 'node_modules'));
  const entry = join(packageRoot, 'dist/frontend/index.js');
  writeFileSync(join(folder, 'example.mjs'), example[0]!.replace("'vllm-ts'", `'${entry}'`));
  const output = execFileSync(process.execPath, [join(folder, 'example.mjs')], {
    cwd: packageRoot,
  }).toString();
  t.ok(output.trim().length > 0, 'prints text');
  t.end();
});
