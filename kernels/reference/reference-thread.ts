// The thread of the reference backend: loads, then executes steps in the order they come. Holds no
// socket, so that it can be terminated.
import { parentPort } from 'node:worker_threads';
import { columnTypes, type Column } from '../../common/wire/columns.ts';
import { stepInputColumns, type StepInputColumns } from '../../common/wire/step.ts';
import { KernelError } from '../../common/errors.ts';
import { Executor, type ExecutorLoad } from './executor.ts';
import type { FromThread, ToThread } from './reference-backend.ts';

const port = parentPort!;
let executor: Executor | null = null;
let program: ExecutorLoad['program'] | null = null;
let lastEndUs: number | null = null;
/** Shared with the backend: step, op index. */
let position: Int32Array | null = null;

const tell = (message: FromThread) => port.postMessage(message);
const nowUs = () => Number(process.hrtime.bigint() / 1000n);

port.on('message', (message: ToThread) => {
  if (message.kind === 'load') {
    try {
      executor = new Executor(message.load);
    } catch (error) {
      tell({ kind: 'error', message: `load: ${textOf(error)}`, step: null, op: null });
      return;
    }
    program = message.load.program;
    position = message.position;
    tell({ kind: 'loaded' });
    return;
  }
  execute(message.step, message.body, message.table);
});

function execute(step: number, body: Uint8Array, table: Int32Array): void {
  let op = -1;
  try {
    const startUs = nowUs();
    Atomics.store(position!, 0, step);
    const output = executor!.execute(columnsOf(body, table), (index) => {
      op = index;
      Atomics.store(position!, 1, index);
    });
    const endUs = nowUs();
    const deviceIdleUs = lastEndUs === null ? 0 : startUs - lastEndUs;
    lastEndUs = endUs;
    const result = { step, hash: output.hash(), startUs, endUs, deviceIdleUs };
    tell({ kind: 'step', result: { ...result, columns: output.columns() } });
  } catch (error) {
    const name = op < 0 ? null : program!.ops[op]!.op;
    tell({ kind: 'error', message: textOf(error), step, op: name });
    // Nothing is reported after an error.
    port.close();
  }
}

function columnsOf(body: Uint8Array, table: Int32Array): StepInputColumns {
  const columns: Record<string, Column> = {};
  Object.entries(stepInputColumns).forEach(([name, type], i) => {
    const offset = body.byteOffset + table[2 * i]!;
    columns[name] = new columnTypes[type](body.buffer as ArrayBuffer, offset, table[2 * i + 1]);
  });
  return columns as unknown as StepInputColumns;
}

function textOf(error: unknown): string {
  if (error instanceof KernelError) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
