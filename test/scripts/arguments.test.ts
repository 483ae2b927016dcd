// Every command of scripts/ says what it is on --help, and answers what it cannot read with one line
// and exit code 64; bench-ranks.sh says what is missing before it runs anything.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const names = readdirSync(join(packageRoot, 'scripts'));
/** test.mjs takes words alone; vllm-ts.mjs is the product. */
const uncompiled = names
  .filter((name) => name.endsWith('.mjs') && !['test.mjs', 'vllm-ts.mjs'].includes(name))
  .map((name) => `scripts/${name}`);
const compiled = [
  ...names.filter((name) => /^(bench-.*|simulate)\.ts$/.test(name)),
  ...['bench-gpu/parity.ts', 'bench-gpu/faults.ts'],
].map((name) => `dist/scripts/${name.replace(/ts$/, 'js')}`);

const run = (script: string, ...args: string[]) =>
  spawnSync(process.execPath, [join(packageRoot, script), ...args], { encoding: 'utf8' });

t.test('--help, and an option that there is not', (t) => {
  t.ok(uncompiled.length >= 8 && compiled.length >= 8, [...uncompiled, ...compiled].join(' '));
  for (const script of [...uncompiled, ...compiled]) {
    const help = run(script, '--help');
    t.match(help, { status: 0, stderr: '' }, script);
    t.ok(
      /npm run (build|package)/.test(help.stdout) || help.stdout.includes(`node ${script}`),
      help.stdout,
    );
    const wrong = run(script, '--no-such-option');
    t.match(wrong, { status: 64, stdout: '', stderr: /^[\w:-]+: .*--no-such-option.*\n$/ }, script);
  }
  t.end();
});

t.test('what is no number', (t) => {
  const lines: readonly (readonly [string, readonly string[], string])[] = [
    ['bench-gpu-engine', ['--repeats', 'x'], '--repeats: x is not a positive whole number'],
    ['bench-gpu-engine', ['--repeats', ''], '--repeats:  is not a positive whole number'],
    ['bench-gpu-engine', ['--row-limit', '0'], '--row-limit: 0 is not a positive whole number'],
    [
      'bench-gpu-engine',
      ['--tensor-parallel-size', '1.5'],
      '--tensor-parallel-size: 1.5 is not a positive whole number',
    ],
    ['bench-gpu-engine', ['--rows', 'no'], 'no row no; --list names them'],
    ['bench-gpu/parity', ['--tolerance', '1e9'], '--tolerance: 1e9 is not a positive number'],
    ['bench-gpu/faults', ['--ranks', 'two'], '--ranks: two is not a positive whole number'],
    ['bench-cpu', [], 'one MODEL_DIR is needed'],
    ['bench-cpu', ['models/demo', '--threads', 'x'], '--threads: x is not a positive whole number'],
    ['bench-engine', ['1', 'x'], 'requests: x is not a positive whole number'],
    ['bench-scheduler', ['1', '2'], '2: one argument too many'],
    ['simulate', ['10', '0'], 'requests a second: 0 is not a positive number'],
    ['simulate', ['10', '0.5', 'a=b'], 'the scheduler has no a'],
  ];
  for (const [script, args, line] of lines) {
    const stderr = `${script.replace('bench-gpu/', '')}: ${line}\n`;
    t.match(run(`dist/scripts/${script}.js`, ...args), { status: 64, stdout: '', stderr }, line);
  }
  t.end();
});

const skip = spawnSync('python3', ['-c', '']).status === 0 ? false : 'python3 is absent';

t.test('bench-ranks.sh without torch, or a GPU', { skip }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-modules-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  const put = (name: string, text: string, mode = 0o644) => {
    writeFileSync(join(folder, name), text, { mode });
  };
  put('numpy.py', '');
  put('nvidia-smi', '#!/bin/sh\necho "GPU 0: one"\n', 0o755);
  const ranks = (...args: string[]) =>
    spawnSync('sh', [join(packageRoot, 'scripts/bench-ranks.sh'), ...args], {
      encoding: 'utf8',
      env: {
        ...process.env,
        PATH: `${folder}:${process.env['PATH']}`,
        PYTHONPATH: folder,
        PYTHONDONTWRITEBYTECODE: '1',
      },
    });
  const help = ranks('--help');
  t.match(help, {
    status: 0,
    stderr: '',
    stdout: /^Checks and times.*\n\n {2}sh scripts\/bench-r/,
  });
  t.notMatch(help.stdout, '#');
  const no = 'bench-ranks: x is no number of ranks from 2 to 8\n';
  t.match(ranks('x'), { status: 64, stdout: '', stderr: no });
  const absent = 'bench-ranks: there is no no-python\n';
  t.match(ranks('2', 'no-python'), { status: 1, stdout: '', stderr: absent });
  put('torch.py', 'raise ModuleNotFoundError("No module named \'torch\'")');
  const torch = /^bench-ranks: \S+ cannot import torch \(No module named 'torch'\): install.*\n$/;
  t.match(ranks(), { status: 1, stdout: '', stderr: torch });
  put('torch.py', '');
  const gpus = 'bench-ranks: 2 GPUs are needed, nvidia-smi lists 1\n';
  t.match(ranks('2'), { status: 1, stdout: '', stderr: gpus });
  t.end();
});
