// The CUDA library compiles where nvcc is found, exports what its header declares, and needs nothing
// at load that a machine without a GPU lacks. On a machine with a GPU its kernels are checked too.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const script = join(root, 'scripts/build-cuda.mjs');
const build = (args: string[], env = process.env) =>
  spawnSync(process.execPath, [script, ...args], { encoding: 'utf8', env });

// Asked without building: a PATH and CUDA_HOME of the test's own decide nothing here.
const probe = `import { findNvcc } from ${JSON.stringify(join(root, 'scripts/build/cuda.mjs'))};
process.exit(findNvcc() === null ? 1 : 0);`;
const hasNvcc =
  spawnSync(process.execPath, ['--input-type=module', '-e', probe], { stdio: 'ignore' }).status ===
  0;
const noNvcc = hasNvcc ? false : 'no nvcc: the CUDA library is not compiled';
const noGpu = existsSync('/dev/nvidia0') ? noNvcc : 'no GPU: CUDA kernels are not run';

/** The library's path, as the build prints it or finds it current. */
function library(t: Test): string {
  const run = build([]);
  t.equal(run.status, 0, run.stderr);
  const listed = spawnSync('sh', ['-c', `ls ${JSON.stringify(root)}build/*/libvt_cuda.so`], {
    encoding: 'utf8',
  });
  return listed.stdout.trim().split('\n')[0]!;
}

t.test(
  'build:cuda compiles; the library exports the headers and needs libc and libstdc++ only',
  { skip: noNvcc },
  (t) => {
    const path = library(t);
    const headers = ['vt_cuda.h', 'vt_cuda_sample.h', 'vt_cuda_collective.h', 'vt_cuda_parts.h'];
    const header = headers
      .map((name) => readFileSync(join(root, 'kernels/cuda', name), 'utf8'))
      .join('\n');
    const declared = [...header.matchAll(/VT_CUDA_API [\w *]+?(vt_cuda_\w+)\(/g)].map((m) => m[1]!);
    t.ok(declared.length > 10);
    const symbols = dynamicStrings(readFileSync(path));
    for (const name of declared) t.ok(symbols.includes(name), `${name} is exported`);
    const needed = symbols.filter((s) => /^lib.*\.so/.test(s) && s !== 'libvt_cuda.so');
    const allowed = /^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt)\.so/;
    t.same(
      needed.filter((name) => !allowed.test(name)),
      [],
    );
    t.equal(build([]).stderr, '', 'a current library is not built again');
    t.match(
      build(['--ptx', '70']).stderr,
      /^build:cuda: --ptx 70 is not built; 80 is\n$/,
      'no such target',
    );
    t.end();
  },
);

t.test('without nvcc there is one line, and only --if-present makes it a success', (t) => {
  const env = { PATH: '/nonexistent', CUDA_HOME: '', HOME: '/nonexistent' };
  const run = build([], env);
  t.equal(run.status, 1);
  t.match(run.stderr, /^build:cuda: no nvcc of CUDA 13 on the PATH, .*\n$/);
  t.equal(build(['--if-present'], env).status, 0);
  const wrong = build(['--fast'], env);
  t.match([wrong.status, wrong.stderr], [64, /^build:cuda: Unknown option '--fast'.*\n$/]);
  const help = build(['--help'], env);
  t.match([help.status, help.stdout], [0, /^Builds libvt_cuda\.so, [^]*\n {2}--release [^/]*$/]);
  const old = t.testdir({
    bin: { nvcc: '#!/bin/sh\necho Cuda compilation tools, release 12.8, V12.8.93' },
  });
  chmodSync(join(old, 'bin/nvcc'), 0o755);
  t.match(
    build([], { ...env, CUDA_HOME: old }).stderr,
    /^build:cuda: no nvcc of CUDA 13 .* \(\/\S+\/bin\/nvcc is of 12\.8\): install /,
    'one that is too old is named',
  );
  t.end();
});

t.test(
  'what a load refuses before it needs a device, and how large its KV cache is',
  { skip: noNvcc },
  (t) => {
    const path = library(t);
    const programs = t.testdir({});
    const dump = fileURLToPath(new URL('dump-program.js', import.meta.url));
    t.equal(spawnSync(process.execPath, [dump, programs], { cwd: root }).status, 0);
    const check = join(root, 'test/kernels/cuda/check_host.py');
    const args = [check, path, join(programs, 'demo.json')];
    const run = spawnSync('python3', args, { encoding: 'utf8' });
    t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
    t.end();
  },
);

t.test('kernels against float64 and bit for bit', { skip: noGpu }, (t) => {
  const path = library(t);
  const check = join(root, 'test/kernels/cuda/check.py');
  const run = spawnSync('python3', [check, path], { encoding: 'utf8' });
  t.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  t.end();
});

/** The strings of an ELF file's .dynstr: names of its symbols and of the libraries it needs. */
function dynamicStrings(elf: Buffer): string[] {
  const sections = Number(elf.readBigUInt64LE(0x28));
  const size = elf.readUInt16LE(0x3a);
  const count = elf.readUInt16LE(0x3c);
  const at = (index: number) => sections + index * size;
  for (let i = 0; i < count; i++) {
    if (elf.readUInt32LE(at(i) + 4) !== 11) continue; // SHT_DYNSYM; its strings are sh_link
    const strings = at(elf.readUInt32LE(at(i) + 0x28));
    const offset = Number(elf.readBigUInt64LE(strings + 0x18));
    const length = Number(elf.readBigUInt64LE(strings + 0x20));
    return elf
      .subarray(offset, offset + length)
      .toString('latin1')
      .split('\0');
  }
  throw new Error('no .dynsym section');
}
