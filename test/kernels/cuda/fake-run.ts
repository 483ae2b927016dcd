// Runs in a process of its own, whose environment brings a fake libvt_cuda.so: does what its first
// argument says and prints what came of it as JSON.
import { findCudaDevice } from '../../../common/cuda-device.ts';
import { KernelError } from '../../../common/errors.ts';
import type { BackendInfo, StepResult } from '../../../kernels/backend.ts';
import { CudaBackend } from '../../../kernels/cuda-backend.ts';
import { demoFolder, loadFolder, type TestLoad } from '../demo-backend.ts';
import { emptyLists, pack } from '../step-driver.ts';

const results: StepResult[] = [];
const errors: unknown[] = [];
const backend = new CudaBackend();
let heard: () => void = () => undefined;
backend.onStep = (result) => {
  results.push(result);
  heard();
};
backend.onError = (error) => {
  errors.push(describe(error));
  heard();
};

function describe(error: unknown): object {
  if (!(error instanceof KernelError)) return { name: 'not a KernelError' };
  const { name, message, op, step, rank } = error;
  return { name, message, op, step, ...(rank !== null && { rank }) };
}

const load = async (options: TestLoad = {}): Promise<BackendInfo> =>
  loadFolder(backend, demoFolder, { actDtype: 'bf16', kvDtype: 'bf16', ...options });

function submit(step: number, rows: readonly number[]): void {
  const each = (value: number) => rows.map(() => value);
  const lists = { ...emptyLists(), row: [...rows], start: each(0), count: each(1), flags: each(1) };
  const { body, table } = pack(lists);
  backend.submit(step, rows.length, body, table);
}

async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await new Promise<void>((resolve) => (heard = resolve));
}

async function run(what: string): Promise<unknown> {
  switch (what) {
    case 'device':
      return findCudaDevice();
    case 'load':
      return load({ numBlocks: null, memoryUtilization: 0.5 }).catch(describe);
    case 'dummy':
      return load({
        dummySeed: 11,
        numBlocks: null,
        kvCacheMemoryBytes: 4096,
        enforceEager: true,
        fitModelLen: true,
      });
    case 'blocks':
      return load({ numBlocks: 10 });
    case 'steps': {
      await load();
      for (let step = 1; step <= 3; step++) submit(step, [step, 0]);
      await until(() => results.length === 3);
      const position = backend.position();
      return { position, steps: results.map(({ columns, ...rest }) => ({ ...rest, columns })) };
    }
    case 'ranks':
    case 'hosts': {
      const addresses = ['10.0.0.1:29503', '10.0.0.2:29504'];
      const tokens = { shownTokens: new Uint8Array(128), expectedTokens: new Uint8Array(128) };
      tokens.expectedTokens[0] = 77;
      const group = {
        ...{ rank: 1, numRanks: 2, path: '/nowhere/ranks', timeoutMs: 2000 },
        ...(what === 'hosts' && {
          local: { rank: 0, numRanks: 1 },
          network: { addresses, ...tokens },
        }),
      };
      const loaded = await load({ dummySeed: 3, numBlocks: null, group }).catch(describe);
      return loaded;
    }
    case 'fault':
    case 'fault of a rank': {
      const group = { rank: 0, numRanks: 2, path: '/nowhere/ranks', timeoutMs: 2000 };
      await load(what === 'fault' ? {} : { group });
      for (let step = 1; step <= 2; step++) submit(step, [0]);
      try {
        submit(3, [0]);
      } catch {
        // The fault of step 2 may be known by now.
      }
      await until(() => errors.length > 0);
      let after: unknown = null;
      try {
        submit(4, [0]);
      } catch (error) {
        after = describe(error);
      }
      return { numSteps: results.length, errors, after };
    }
    case 'buffer': {
      await load();
      backend.writeBuffer(1, Uint16Array.from([1, 2, 65_535]));
      return [...new Uint16Array(backend.readBuffer(1)).subarray(0, 4)];
    }
    case 'early close': {
      const loading = load().catch(describe);
      await backend.close();
      return loading;
    }
    default:
      throw new Error(`cannot run '${what}'`);
  }
}

const outcome = await run(process.argv[2] ?? '');
await backend.close();
// The process ends by itself: nothing of the backend keeps it.
process.stdout.write(JSON.stringify(outcome));
