// Runs the tests: what test/**/*.test.ts was compiled to, or those whose path contains an argument.
// Ends with one line, `N passed, N failed, N skipped`. Where VLLM_TS_MAY_SKIP is set, a test that
// is skipped for a reason which this pattern does not match has failed: CI installs what it can.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const wanted = process.argv.slice(2);
const maySkip = new RegExp(process.env.VLLM_TS_MAY_SKIP || '');
const files = readdirSync(join(root, 'test'), { recursive: true })
  .map((name) => join('test', String(name)))
  .filter((name) => name.endsWith('.test.ts'))
  .filter((name) => wanted.length === 0 || wanted.some((word) => name.includes(word)))
  .map((name) => join('dist', name.replace(/\.ts$/, '.js')))
  .sort();
if (files.length === 0) {
  console.error('no test file matches', wanted.join(' '));
  process.exit(1);
}
const child = spawn(
  process.execPath,
  ['--test', '--test-reporter=tap', `--test-concurrency=${availableParallelism()}`, ...files],
  {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
    // Seconds for one file; the tests themselves wait for events, not for a clock.
    env: { TAP_TIMEOUT: '1800', ...process.env },
  },
);

const counts = { pass: 0, fail: 0, skipped: 0, cancelled: 0, todo: 0 };
const failures = [];
/** Tests of files that have begun and not ended; a file whose event loop runs dry leaves one. */
const unfinished = new Set();
const skips = [];
let tail = '';
child.stdout.setEncoding('utf8');
child.stdout.on('data', (chunk) => {
  process.stdout.write(chunk);
  const lines = (tail + chunk).split('\n');
  tail = lines.pop();
  for (const line of lines) {
    const count = /^# (pass|fail|skipped|cancelled|todo) (\d+)$/.exec(line);
    if (count) counts[count[1]] = Number(count[2]);
    const [, begun] = /^# Subtest: (.*)$/.exec(line) ?? [];
    if (begun !== undefined) unfinished.add(begun);
    const [, ended] = /^(?:not )?ok \d+ - (.*?)(?: # .*)?$/.exec(line) ?? [];
    if (ended !== undefined) unfinished.delete(ended);
    const skip = /^ *ok \d+ - (.*) # SKIP ?(.*)$/.exec(line);
    if (skip) skips.push({ name: skip[1], reason: skip[2] });
    const failure = /^ *not ok \d+ - (.*)$/.exec(line);
    if (failure) failures.push(failure[1]);
  }
});
child.on('close', (code) => {
  const refused = skips.filter(({ reason }) => !maySkip.test(reason));
  for (const { name, reason } of skips) console.log(`skipped: ${name} (${reason})`);
  for (const { name } of refused) console.log(`failed: ${name}: this one may not be skipped here`);
  for (const name of failures) console.log(`failed: ${name}`);
  for (const name of unfinished) console.log(`failed: ${name}: it never ended`);
  const failed = counts.fail + counts.cancelled + refused.length + unfinished.size;
  const skipped = counts.skipped - refused.length;
  console.log(`${counts.pass} passed, ${failed} failed, ${skipped} skipped`);
  process.exit(code || failed ? 1 : 0);
});
