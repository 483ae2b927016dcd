// bench-gpu where what it needs is not there: a line says what, and no trace.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const skip = spawnSync('python3', ['-c', '']).status === 0 ? false : 'python3 is absent';

function bench(python: string) {
  const skipped = 'build,engine-check,engine';
  const script = join(packageRoot, 'scripts/bench-gpu.mjs');
  const args = [script, '--skip', skipped, '--python', python];
  return spawnSync(process.execPath, args, { encoding: 'utf8' });
}

t.test('bench-gpu names a Python that is not there', (t) => {
  const { status, stdout, stderr } = bench('no-such-python');
  t.equal(status, 1);
  t.equal(stderr, 'bench-gpu: no-such-python cannot be run: ENOENT\n');
  t.match(stdout, /\nfailed: kernels\n$/);
  t.end();
});

t.test('bench-gpu.py and check-gpu.py name a module that is not there', { skip }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-modules-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  for (const name of ['numpy', 'torch'])
    writeFileSync(
      join(folder, `${name}.py`),
      `raise ModuleNotFoundError("No module named '${name}'")`,
    );
  const env = { ...process.env, PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: '1' };
  for (const [script, module] of [
    ['bench-gpu.py', 'torch'],
    ['check-gpu.py', 'numpy'],
  ] as const) {
    const run = spawnSync('python3', [join(packageRoot, 'scripts', script)], {
      encoding: 'utf8',
      env,
    });
    t.equal(run.status, 1, script);
    const line = `${script}: \\S+ cannot import ${module} \\(No module named '${module}'\\): install it`;
    t.match(run.stderr, new RegExp(`^${line}[^\\n]*\\n$`), script);
  }
  t.end();
});
