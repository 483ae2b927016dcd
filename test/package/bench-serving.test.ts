// The benchmark of a whole server counts what it was asked to measure, and says when it could not.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const bench = (...args: string[]) =>
  spawnSync(process.execPath, [join(packageRoot, 'scripts/bench-serving.mjs'), ...args], {
    cwd: packageRoot,
    encoding: 'utf8',
  });

interface Report {
  readonly rows: readonly Readonly<Record<string, number>>[];
  readonly medians: readonly { concurrency: number; servers: Record<string, number> }[];
}

t.test('bench-serving measures the demo model', { timeout: 600_000 }, (t) => {
  const sizes = ['--concurrency', '1,3', '--rounds', '2', '--requests-per-stream', '2'];
  const tokens = ['--prompt-tokens', '9', '--output-tokens', '5', '--vocab', '2000'];
  const run = bench('--serve', 'models/demo', '--json', ...sizes, ...tokens);
  t.equal(run.status, 0, run.stderr);
  const { rows, medians } = JSON.parse(run.stdout) as Report;
  t.same(
    rows.map(({ concurrency, requests, failed, outputTokens }) => [
      concurrency,
      requests,
      failed,
      outputTokens,
    ]),
    [1, 1, 3, 3].map((concurrency) => [concurrency, concurrency * 2, 0, concurrency * 2 * 5]),
  );
  for (const row of rows) {
    t.ok(row['totalRate']! / row['outputRate']! - 14 / 5 < 1e-9, 'prompts count in the total');
    t.ok(row['ttftMs']! > 0 && row['tpotMs']! > 0 && row['ttftP99Ms']! >= row['ttftMs']!);
  }
  t.same(
    medians.map(({ concurrency }) => concurrency),
    [1, 3],
  );
  t.end();
});

t.test('requests that fail are counted, and the exit code says so', (t) => {
  const run = bench('--url', 'http://127.0.0.1:9', '--concurrency', '2', '--rounds', '1');
  t.equal(run.status, 1);
  t.match(run.stderr, /4 requests failed: .*ECONNREFUSED/);
  t.equal(bench().status, 64);
  t.match(bench('--serve', '/nonexistent').stderr, /^bench-serving: vllm-ts ended .*\n.*folder/);
  t.end();
});
