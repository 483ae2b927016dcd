// The native build compiles what changed and nothing else, and looks at contents only where sizes
// or times differ: in a small tree of its own, with a compiler that counts how often it is run.
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const { buildNative } = (await import(
  pathToFileURL(join(packageRoot, 'scripts/build/native.mjs')).href
)) as {
  buildNative: (options: {
    root: string;
    outDir: string;
    report: (line: string) => void;
  }) => Promise<string[]>;
};

const root = mkdtempSync(join(tmpdir(), 'vllm-ts-build-'));
const calls = join(root, 'calls');
const compiler = join(root, 'bin/c++');

function write(file: string, text: string): void {
  mkdirSync(dirname(join(root, file)), { recursive: true });
  writeFileSync(join(root, file), text);
}

/** What the build said, and whether it ran the compiler at all. */
async function build(): Promise<{ lines: string[]; ranCompiler: boolean }> {
  writeFileSync(calls, '');
  const lines: string[] = [];
  await buildNative({ root, outDir: join(root, 'out'), report: (line) => lines.push(line) });
  return { lines: lines.sort(), ranCompiler: readFileSync(calls, 'utf8') !== '' };
}

t.before(() => {
  symlinkSync(join(packageRoot, 'node_modules'), join(root, 'node_modules'));
  write('package.json', '{}');
  write('kernels/addon/a.cc', '#include "../shared.h"\nint a() { return shared; }\n');
  write('kernels/cpu/b.cc', 'int b() { return 1; }\n');
  write('kernels/shared.h', 'constexpr int shared = 1;\n');
  write('common/os/os.cc', 'int os() { return 1; }\n');
  const real = execFileSync('/bin/sh', ['-c', 'command -v c++ || command -v g++']).toString();
  write('bin/c++', `#!/bin/sh\necho "$@" >> ${calls}\nexec ${real.trim()} "$@"\n`);
  chmodSync(compiler, 0o755);
  process.env['CXX'] = compiler;
});
t.teardown(() => rmSync(root, { recursive: true, force: true }));

const everything = [
  'built kernels.node',
  'built os.node',
  'compile common/os/os.cc',
  'compile kernels/addon/a.cc',
  'compile kernels/cpu/b.cc',
];

t.test('first everything, then nothing, without running the compiler', async (t) => {
  t.same((await build()).lines, everything);
  t.same(await build(), { lines: [], ranCompiler: false });
});

t.test(
  'another time and the same content: nothing, and the next look is cheap again',
  async (t) => {
    utimesSync(join(root, 'kernels/cpu/b.cc'), 1e9, 1e9);
    t.same(await build(), { lines: [], ranCompiler: true });
    t.same(await build(), { lines: [], ranCompiler: false });
  },
);

t.test('a changed source of the same size: itself and its module', async (t) => {
  write('kernels/cpu/b.cc', 'int b() { return 2; }\n');
  t.same((await build()).lines, ['built kernels.node', 'compile kernels/cpu/b.cc']);
});

t.test('a changed header: the sources that include it', async (t) => {
  write('kernels/shared.h', 'constexpr int shared = 2;\n');
  t.same((await build()).lines, ['built kernels.node', 'compile kernels/addon/a.cc']);
});

t.test('a new source links the module again', async (t) => {
  write('kernels/cpu/c.cc', 'int c() { return 1; }\n');
  t.same((await build()).lines, ['built kernels.node', 'compile kernels/cpu/c.cc']);
  rmSync(join(root, 'kernels/cpu/c.cc'));
  t.same((await build()).lines, ['built kernels.node']);
});

t.test('a missing output is built again', async (t) => {
  rmSync(join(root, 'out/os.node'));
  t.same((await build()).lines, ['built os.node']);
});

t.test('a compiler that changed compiles everything; one that is gone does no harm', async (t) => {
  const text = readFileSync(compiler, 'utf8');
  write('bin/c++', text.replace('exec', 'case "$1" in --version) echo new; exit;; esac\nexec'));
  t.same((await build()).lines, everything);
  rmSync(compiler);
  t.same(await build(), { lines: [], ranCompiler: false });
  write('kernels/cpu/b.cc', 'int b() { return 3; }\n');
  await t.rejects(build(), { message: /^the C\+\+ compiler named by CXX does not run: / });
});

t.test(
  'a variant whose flags the compiler refuses is left out by name',
  { skip: process.arch !== 'x64' && 'only x64 has variants' },
  async (t) => {
    const refuse = 'case "$*" in *-mavx512f*) exit 1;; esac';
    write('bin/c++', `#!/bin/sh\n${refuse}\nexec c++ "$@"\n`);
    chmodSync(compiler, 0o755);
    write('kernels/cpu/variants/v.cc', 'static int v [[maybe_unused]] = 1;\n');
    const { lines } = await build();
    t.match(
      lines.filter((line) => line.startsWith('variant')),
      [/^variant avx512 is left out: the compiler refuses -mavx512f /],
    );
    t.ok(lines.includes('compile kernels/cpu/variants/v.cc (avx2)'));
    t.notOk(lines.includes('compile kernels/cpu/variants/v.cc (avx512)'));
    rmSync(join(root, 'kernels/cpu/variants'), { recursive: true });
  },
);

t.test(
  'where nothing can be written one line says so',
  { skip: process.platform !== 'linux' && 'only Linux has /sys' },
  async (t) => {
    const outDir = '/sys/vllm-ts-no-such-folder';
    await t.rejects(buildNative({ root, outDir, report: () => undefined }), {
      name: 'Error',
      message: /^what is stale cannot be built: \/sys\/\S+ cannot be written \(E\w+\)$/,
      isUnwritable: true,
    });
  },
);

t.test('without a compiler one line says how to get one', async (t) => {
  const { PATH } = process.env;
  delete process.env['CXX'];
  process.env['PATH'] = join(root, 'nothing');
  write('kernels/cpu/b.cc', 'int b() { return 4; }\n');
  await t.rejects(build(), {
    message: /^no C\+\+ compiler found: install one \(Debian, Ubuntu: apt-get install g\+\+; .*\)$/,
  });
  process.env['PATH'] = PATH;
});

t.test('an error: all that the compiler says, and the source', async (t) => {
  process.env['CXX'] = 'c++';
  write('kernels/cpu/b.cc', 'int b() { return nothing; }\nint c() { return nothing; }\n');
  const lines: string[] = [];
  const report = (line: string) => lines.push(line);
  await t.rejects(buildNative({ root, outDir: join(root, 'out'), report }), {
    message: /failed on .*kernels\/cpu\/b\.cc$/,
  });
  t.match(lines.join(''), /b\.cc:1:.*error: .*nothing.*b\.cc:2:.*error: .*nothing/s);
});
