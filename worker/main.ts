// The worker process: loads the model on its device, then executes the engine's steps.
import type { WorkerSlice } from '../common/config.ts';
import { exitCodes, KernelError, StartError } from '../common/errors.ts';
import { runProcess, type ProcessContext, type RunningProcess } from '../common/process.ts';
import { makeHello } from '../common/wire/handshake.ts';
import type { WorkerToEngine } from '../common/wire/messages.ts';
import { receive } from '../common/wire/receive.ts';
import { clientCurve, DealerLink } from '../common/wire/transport.ts';
import { createBackend } from './backends.ts';
import { loadModel } from './load-model.ts';
import { StepLoop } from './step-loop.ts';

runProcess<WorkerSlice>('worker', startWorker);

async function startWorker(context: ProcessContext<WorkerSlice>): Promise<RunningProcess> {
  const { slice, generation, token, log } = context;
  const { rank } = slice;
  const backend = await createBackend(slice.device);
  const note = (line: string) => log.info(line);
  const model = await loadModel(backend, slice, note).catch((error: unknown) => {
    // A backend that cannot load (no memory, no such instruction set) is a failed start.
    throw error instanceof KernelError ? new StartError(1, error.message) : error;
  });
  const { device, numBlocks, memory } = model;
  log.info({ device, numBlocks, memory: inMib(memory) }, 'model loaded');

  const link = new DealerLink(
    slice.engineAddress,
    makeHello('worker', rank, generation, token),
    {
      message: (raw) => {
        const message = receive('engineToWorker', raw);
        switch (message.kind) {
          case 'welcome':
            send({ kind: 'workerReady', rank, generation, ...model });
            return;
          case 'refused':
            context.fatal(new StartError(exitCodes.versionMismatch, `engine: ${message.message}`));
            return;
          case 'stepInput':
            steps.submit(message);
            return;
        }
      },
      // The engine is our own process: bytes that are not a message of its are a fault of ours.
      rejected: (error) => context.fatal(error),
    },
    clientCurve(slice.engineKey),
  );
  const send = (message: WorkerToEngine) => link.send(message);
  const steps = new StepLoop({
    backend,
    rank,
    generation,
    send,
    failed: (error) => context.fatal(error),
  });
  return {
    info: { ...model, kvCacheTokens: (model.numBlocks - 1) * slice.blockSize },
    stop: async () => {
      steps.stop();
      link.close();
      await backend.close();
    },
  };
}

/** The ledger in a line: "weights 12.9 MiB, kvCache 512.0 MiB". */
function inMib(memory: Readonly<Record<string, number>>): string {
  return Object.entries(memory)
    .map(([owner, bytes]) => `${owner} ${(bytes / 2 ** 20).toFixed(1)} MiB`)
    .join(', ');
}
