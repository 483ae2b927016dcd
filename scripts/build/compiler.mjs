// Which C++ compiler there is, and what it can do.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { lookAt } from './seen.mjs';

export class BuildError extends Error {}

/** Variants by architecture, besides `portable`, which every architecture has. */
const cpuVariants = {
  x64: {
    avx2: ['-mavx2', '-mfma', '-mf16c'],
    avx512: ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx2', '-mfma', '-mf16c'],
  },
};

const candidates = () => (process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++']);

/** The C++ compiler: $CXX, else the first of c++, g++, clang++ that runs. */
export function findCompiler() {
  for (const command of candidates()) {
    const [program, ...args] = command.split(/\s+/);
    const run = spawnSync(program, [...args, '--version'], { encoding: 'utf8' });
    if (run.status === 0) return { program, args, version: run.stdout.trim() };
  }
  throw new BuildError(
    process.env.CXX
      ? `the C++ compiler named by CXX does not run: ${process.env.CXX}`
      : 'no C++ compiler found: install one (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install)',
  );
}

/** What the compiler looks like without running it: $CXX and its program; null where none is. */
export function lookAtCompiler() {
  const folders = (process.env.PATH ?? '').split(':');
  const found = candidates().flatMap((command) => {
    const [program] = command.split(/\s+/);
    const paths = program.includes('/') ? [program] : folders.map((path) => join(path, program));
    return paths.filter(isProgram).slice(0, 1);
  });
  if (found.length === 0) return null;
  return lookAt('/', [realpathSync(found[0])], [process.env.CXX ?? '']).replace('\n', ' ');
}

function isProgram(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Which variants of this architecture the compiler accepts: { name: flags }. The others are named. */
export function probeVariants(compiler, arch, report) {
  const accepted = {};
  for (const [name, flags] of Object.entries(cpuVariants[arch] ?? {})) {
    const probe = spawnSync(
      compiler.program,
      [...compiler.args, ...flags, '-x', 'c++', '-c', '-', '-o', '/dev/null'],
      { input: 'int main() { return 0; }', stdio: ['pipe', 'ignore', 'ignore'] },
    );
    if (probe.status === 0) accepted[name] = flags;
    else report(`variant ${name} is left out: the compiler refuses ${flags.join(' ')}`);
  }
  return accepted;
}
