// The C++ compiler for tests that compile everything but to measure it: what is built is the same
// but for the optimizer, which takes most of the time (.ci/run builds with it).
import { writeFileSync } from 'node:fs';

/** Writes a program at `path` that is the compiler named `program` without its optimizer. */
export function writeQuickCompiler(path: string, program: string): void {
  writeFileSync(path, `#!/bin/sh\nexec ${program} "$@" -O0\n`, { mode: 0o755 });
}
