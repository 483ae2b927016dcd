// Builds libvt_cuda.so, the CUDA kernels behind a C ABI: `npm run build:cuda`. Finds nvcc on the
// PATH, in CUDA_HOME, or in pip's nvidia packages; compiles what is stale; links cudart statically,
// so that the library loads where there is no driver.
//   --release    also sm_80, and PTX for what comes after
//   --if-present without nvcc: say so and exit 0
import { fileURLToPath } from 'node:url';
import { buildCuda } from './build/cuda.mjs';
import { BuildError } from './build/native.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const known = ['--release', '--if-present'];
const unknown = process.argv.slice(2).filter((arg) => !known.includes(arg));
if (unknown.length > 0) {
  console.error(`build:cuda: unknown argument ${unknown[0]}; there are ${known.join(' and ')}`);
  process.exit(64);
}

try {
  await buildCuda({
    root,
    release: process.argv.includes('--release'),
    report: (line) => console.error(`build:cuda: ${line}`),
  });
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`build:cuda: ${error.message}`);
  process.exit(error.noCompiler && process.argv.includes('--if-present') ? 0 : 1);
}
