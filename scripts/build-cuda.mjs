// Builds libvt_cuda.so, the CUDA kernels behind a C ABI: `npm run build:cuda`. Finds nvcc on the
// PATH, in CUDA_HOME, or in pip's nvidia packages; compiles what is stale; links cudart statically,
// so that the library loads where there is no driver.
//   --release      also sm_80, and PTX of sm_90 for what comes after
//   --ptx 80       a library of PTX for sm_80 alone, libvt_cuda80.so: what the oldest GPUs run, to be
//                  tried on a newer one (VLLM_TS_CUDA_DIR does not find it: rename it)
//   --if-present   without nvcc: say so and exit 0
//   --objects DIR  keep the objects there, so that checkouts can share them
import { fileURLToPath } from 'node:url';
import { readArguments } from './build/arguments.mjs';
import { buildCuda } from './build/cuda.mjs';
import { BuildError } from './build/native.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const options = {
  release: { type: 'boolean' },
  ptx: { type: 'string' },
  'if-present': { type: 'boolean' },
  objects: { type: 'string' },
};
const { values: args } = readArguments('build:cuda', import.meta.url, { options });

try {
  await buildCuda({
    root,
    release: args.release,
    ...(args.ptx && { ptx: args.ptx }),
    ...(args.objects && { objects: args.objects }),
    report: (line) => console.error(`build:cuda: ${line}`),
  });
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`build:cuda: ${error.message}`);
  process.exit(error.noCompiler && args['if-present'] ? 0 : 1);
}
