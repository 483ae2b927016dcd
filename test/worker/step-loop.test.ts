// Steps between a scripted engine and a scripted backend: bodies go down unchanged, results come up,
// heartbeats tell where a step in flight is, and a failure is told once.
import { mock } from 'node:test';
import t from 'tap';
import { KernelError } from '../../common/errors.ts';
import { decodeMessage, encodeMessage } from '../../common/wire/codec.ts';
import type { StepInput, WorkerToEngine } from '../../common/wire/messages.ts';
import { receive } from '../../common/wire/receive.ts';
import { stepInputColumns, stepOutputColumns } from '../../common/wire/step.ts';
import type { Backend, BackendInfo, StepResult } from '../../kernels/backend.ts';
import { checkStepTable, stepBody } from '../../kernels/step-table.ts';
import { StepLoop } from '../../worker/step-loop.ts';
import { emptyLists, stepColumns } from '../kernels/step-driver.ts';

class ScriptedBackend implements Backend {
  readonly name = 'reference';
  onStep: ((result: StepResult) => void) | null = null;
  onError: ((error: Error) => void) | null = null;
  readonly submitted: { step: number; numTokens: number; rows: Int32Array }[] = [];

  load(): Promise<BackendInfo> {
    return Promise.resolve({ device: 'scripted', memory: {}, numBlocks: 2, notes: [] });
  }

  submit(step: number, numTokens: number, body: Uint8Array, table: Int32Array): void {
    checkStepTable(body, table);
    const index = Object.keys(stepInputColumns).indexOf('row');
    const offset = body.byteOffset + table[2 * index]!;
    const rows = new Int32Array(body.buffer, offset, table[2 * index + 1]).slice();
    this.submitted.push({ step, numTokens, rows });
  }

  finish(step: number): void {
    const columns = Object.fromEntries(
      Object.keys(stepOutputColumns).map((name) => [name, new Int32Array()]),
    ) as unknown as StepResult['columns'];
    this.onStep?.({ step, hash: 7, startUs: 1, endUs: 2, deviceIdleUs: 3, columns });
  }

  position() {
    return { step: 4, opIndex: 9 };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function setUp() {
  const backend = new ScriptedBackend();
  const sent: WorkerToEngine[] = [];
  const failures: Error[] = [];
  const loop = new StepLoop({
    backend,
    rank: 0,
    generation: 3,
    send: (message) => sent.push(message),
    failed: (error) => failures.push(error),
  });
  return { backend, sent, failures, loop };
}

/** A StepInput as it comes from the wire. */
function stepInput(step: number, rows: readonly number[]): StepInput {
  const columns = stepColumns({
    ...emptyLists(),
    row: [...rows],
    start: rows.map(() => 5),
    count: rows.map(() => 1),
    flags: rows.map(() => 1),
  });
  const head = { kind: 'stepInput', step, generation: 0, numTokens: rows.length } as const;
  const message = { ...head, connectorMeta: null, columns };
  return receive('engineToWorker', decodeMessage(encodeMessage(message))) as StepInput;
}

t.test('bodies reach the backend as they came, results the engine', (t) => {
  const { backend, sent, loop } = setUp();
  loop.submit(stepInput(1, [4, 2, 9]));
  loop.submit(stepInput(2, [2]));
  t.strictSame(backend.submitted, [
    { step: 1, numTokens: 3, rows: Int32Array.from([4, 2, 9]) },
    { step: 2, numTokens: 1, rows: Int32Array.from([2]) },
  ]);
  backend.finish(1);
  backend.finish(2);
  t.match(sent, [
    { kind: 'stepOutput', step: 1, generation: 3, rank: 0, hash: 7, deviceIdleUs: 3 },
    { kind: 'stepOutput', step: 2 },
  ]);
  loop.stop();
  t.end();
});

t.test('a heartbeat every half second while a step is in flight, none before or after', (t) => {
  mock.timers.enable({ apis: ['setInterval'] });
  t.teardown(() => mock.timers.reset());
  const { backend, sent, loop } = setUp();
  mock.timers.tick(2000);
  t.strictSame(sent, []);
  loop.submit(stepInput(4, [0]));
  mock.timers.tick(1000);
  t.strictSame(sent, [
    { kind: 'heartbeat', rank: 0, step: 4, opIndex: 9 },
    { kind: 'heartbeat', rank: 0, step: 4, opIndex: 9 },
  ]);
  backend.finish(4);
  mock.timers.tick(2000);
  t.equal(sent.length, 3);
  loop.stop();
  t.end();
});

t.test('a failed step is told once, with its op; later steps are void', (t) => {
  const { backend, sent, failures, loop } = setUp();
  loop.submit(stepInput(5, [0]));
  loop.submit(stepInput(6, [0]));
  backend.onError?.(new KernelError('out of bounds', 'linear', 5));
  backend.onError?.(new KernelError('again', 'linear', 6));
  loop.submit(stepInput(7, [0]));
  t.strictSame(sent, [
    {
      kind: 'workerFailed',
      rank: 0,
      step: 5,
      op: 'linear',
      blamedRank: null,
      message: 'out of bounds',
    },
  ]);
  t.equal(failures.length, 1);
  t.equal(backend.submitted.length, 2);
  t.end();
});

t.test('a backend that refuses a step fails the worker with that step', (t) => {
  const { backend, sent, failures, loop } = setUp();
  backend.submit = () => {
    throw new KernelError('the ring is full');
  };
  loop.submit(stepInput(8, [0]));
  t.match(sent, [{ kind: 'workerFailed', step: 8, op: null, message: 'the ring is full' }]);
  t.equal(failures.length, 1);
  t.end();
});

t.test('columns of different frames are refused', (t) => {
  const message = stepInput(1, [0]);
  const columns = { ...message.columns, row: new Int32Array([0]) };
  t.throws(() => stepBody(columns), /not views of one frame/);
  t.end();
});
