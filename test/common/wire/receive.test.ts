import t from 'tap';
import { receive } from '../../../common/wire/receive.ts';
import { sumOf } from '../../../common/wire/check-columns.ts';
import { checkTokenOutputs } from '../../../common/wire/check-outputs.ts';
import { checkStepInput, checkStepOutput } from '../../../common/wire/check-step.ts';
import { decodeMessage, encodeMessage } from '../../../common/wire/codec.ts';
import type { Column } from '../../../common/wire/columns.ts';
import {
  finishReasons,
  tokenOutputsColumns,
  type StepInput,
} from '../../../common/wire/messages.ts';
import {
  stepInputColumns,
  stepOutputColumns,
  type StepInputColumns,
  type StepOutputColumns,
} from '../../../common/wire/step.ts';
import { makeColumn } from './make-column.ts';
import { idleStatus } from '../../fixtures/idle-status.ts';
import { textColumns } from '../../frontend/client/text-rows.ts';

t.test('receive names the kind and the field or column at fault', (t) => {
  const histograms = { queueTime: { bounds: [1], counts: [0, 2], sum: 5 } };
  const status = { ...idleStatus, histograms };
  t.equal(receive('engineToFrontend', status), status as never);
  t.equal(receive('engineToFrontend', { ...status, later: 1 }).kind, 'status');
  const cases: [string, Record<string, unknown>][] = [
    ['status: field kvCacheUsage is not a finite number', { ...status, kvCacheUsage: NaN }],
    ['status: field numRunning is not u32', { ...status, numRunning: -1 }],
    ...[undefined, -1, 0.5, 2 ** 53].map((step): [string, Record<string, unknown>] => [
      'status: field step is not a count',
      { ...status, step },
    ]),
    [
      'status: field histograms.queueTime.counts is not an array',
      { ...status, histograms: { queueTime: { bounds: [1], counts: 1, sum: 5 } } },
    ],
    [
      'status: field histograms.queueTime.counts is not a count',
      { ...status, histograms: { queueTime: { bounds: [1], counts: [0, -2], sum: 5 } } },
    ],
    [
      'status: field histograms.queueTime is not a map',
      { ...status, histograms: { queueTime: 1 } },
    ],
    ['status: it has columns', { ...status, columns: {} }],
    ['kind toString does not belong on this link', { kind: 'toString' }],
    ['kind hello does not belong on this link', { kind: 'hello' }],
    [
      'rejected: field error.code is not one of',
      { kind: 'rejected', requestId: 1, n: 1, error: { code: 'x', message: '' } },
    ],
  ];
  for (const [message, value] of cases)
    t.throws(() => receive('engineToFrontend', value as never), {
      name: 'WireError',
      message: new RegExp(`^${message}`),
    });
  t.throws(() => receive('frontendToEngine', { kind: 'abort' }), /its columns are missing/);
  const idle = { kind: 'heartbeat', rank: 0, step: -1, opIndex: -1 };
  t.ok(receive('workerToEngine', idle as never), 'a device that has not begun its first step');
  const wrong = { kind: 'abort', columns: { requestId: Int32Array.of(1) } };
  t.throws(() => receive('frontendToEngine', wrong), /abort: column requestId is not u32/);
  t.end();
});

t.test('every broken rule between the columns of TextOutputs is found', (t) => {
  const entry = { id: 5, logprob: -1, rank: 1, bytes: 'é' };
  const rows = [
    { requestId: 1, text: 'ab', tokenIds: [5, 6], logprobs: [[entry], [entry, entry]] },
    { requestId: 2, text: 'c', tokenIds: [7], logprobs: [[]], promptLogprobs: { 1: [entry] } },
    { requestId: 3, promptLogprobs: { 4: [], 5: [entry] } },
  ];
  const message = (change: Record<string, Column>) => ({
    kind: 'textOutputs',
    step: 1,
    generation: 0,
    errors: [],
    columns: { ...textColumns(rows), ...change },
  });
  t.ok(receive('detokenizerToFrontend', message({})));
  const changes: Record<string, Column> = {
    textStart: Uint32Array.of(0, 3, 2),
    tokenStart: Uint32Array.of(1, 2, 3),
    text: new Uint8Array(2),
    tokenIds: new Int32Array(4),
    finishReason: Uint8Array.of(0, 9, 0),
    stopTokenId: new Int32Array(1),
    stopStringIndex: new Int32Array(4),
    numOutputTokens: new Int32Array(0),
    logprobCount: Uint8Array.of(1, 1, 0),
    logprobIds: new Int32Array(2),
    logprobRanks: new Int32Array(4),
    logprobTextStart: Uint32Array.of(0, 2, 4, 5),
    promptLogprobRow: Uint32Array.of(1, 2, 3),
    promptLogprobPosition: new Int32Array(2),
    promptLogprobTextStart: Uint32Array.of(0),
  };
  const disorder: Record<string, Column>[] = [
    { promptLogprobRow: Uint32Array.of(2, 1, 1) },
    { promptLogprobPosition: Int32Array.of(1, 4, 6) },
    { promptLogprobPosition: Int32Array.of(1, 5, 4) },
  ];
  for (const change of disorder)
    t.throws(() => receive('detokenizerToFrontend', message(change)), /column promptLogprob/);
  for (const [name, column] of Object.entries(changes))
    t.throws(
      () => receive('detokenizerToFrontend', message({ [name]: column })),
      { name: 'WireError' },
      name,
    );
  t.end();
});

t.test('checkTokenOutputs finds columns that do not fit each other', (t) => {
  const outputs = (change: Record<string, number[]> = {}) => {
    const lists: Record<string, number[]> = {
      ...{ frontendId: [1, 1], requestId: [1, 2], finishReason: [0, 1], stopTokenId: [-1, 6] },
      ...{ numCachedTokens: [0, 0], tokenStart: [0, 1, 2], tokenIds: [5, 6] },
      ...{ logprobCount: [1, 0], logprobIds: [5], logprobs: [-1], logprobRanks: [1] },
      ...{ promptLogprobRow: [0, 0], promptLogprobPosition: [1, 2], promptLogprobCount: [0, 1] },
      ...{ promptLogprobIds: [7], promptLogprobs: [-1], promptLogprobRanks: [1] },
      ...change,
    };
    const columns = Object.entries(tokenOutputsColumns);
    return Object.fromEntries(
      columns.map(([name, type]) => [name, makeColumn(type, lists[name]!)]),
    );
  };
  t.ok(checkTokenOutputs(outputs()));
  for (const change of [
    { frontendId: [1] },
    { finishReason: [0, finishReasons.length] },
    { tokenStart: [0, 2] },
    { tokenStart: [0, 3, 2] },
    { tokenStart: [1, 1, 2] },
    { tokenStart: [0, 1, 3] },
    { logprobCount: [1] },
    { logprobCount: [1, 1] },
    { logprobRanks: [] },
    { promptLogprobRow: [0, 2] },
    { promptLogprobPosition: [1] },
    { promptLogprobCount: [0, 1, 0] },
    { promptLogprobCount: [1, 1] },
  ])
    t.throws(
      () => checkTokenOutputs(outputs(change)),
      { name: 'WireError' },
      JSON.stringify(change),
    );
  t.throws(() => sumOf('counts', Int32Array.of(3, -1)), /column counts holds -1/);
  t.end();
});

t.test('columns without elements of step messages are left out and come back empty', (t) => {
  const c = stepInput({ stopIds: [], newNumStopIds: [0] });
  const head = { kind: 'stepInput', step: 1, generation: 0, numTokens: 4, connectorMeta: null };
  const decoded = decodeMessage(encodeMessage({ ...head, columns: c }));
  t.notOk('stopIds' in decoded.columns!);
  t.ok('stopIds' in c && 'row' in decoded.columns!);
  const received = receive('engineToWorker', decoded) as StepInput;
  t.same(received.columns, c, 'all of them are there, with their types');
  const wrong = { ...decoded, columns: { ...decoded.columns, newTopK: new Float32Array(1) } };
  t.throws(() => receive('engineToWorker', wrong), /newTopK is not i32/);
  const more = { ...decoded, columns: { ...decoded.columns, more: new Int32Array(1) } };
  t.throws(() => receive('engineToWorker', more), /unknown column more/);
  const { row, ...lost } = decoded.columns!;
  t.ok(row);
  t.throws(() => receive('engineToWorker', { ...decoded, columns: lost }), /0 elements|not 0/);
  const text = { kind: 'abort', columns: { requestId: new Uint32Array(0) } };
  t.ok('requestId' in decodeMessage(encodeMessage(text)).columns!, 'public messages have them all');
  t.end();
});

/** A step with one new row of three tokens and one old row. */
function stepInput(change: Record<string, number[]> = {}): StepInputColumns {
  const lists: Record<string, number[]> = {
    newRow: [1],
    newNumTokens: [3],
    newNumPromptTokens: [3],
    newTokenIds: [5, 6, 7],
    newSeed: [9],
    newNumStopIds: [1],
    stopIds: [2],
    newNumBadWords: [1],
    badWordLength: [2],
    badWordIds: [3, 4],
    blockRow: [1],
    blockIndex: [0],
    blockId: [4],
    row: [0, 1],
    start: [4, 0],
    count: [1, 3],
    flags: [1, 1],
    ...change,
  };
  return Object.fromEntries(
    Object.entries(stepInputColumns).map(([name, type]) => {
      const perNewRow = name.startsWith('new') && name !== 'newTokenIds';
      const list = lists[name] ?? (perNewRow ? [0] : []);
      return [name, makeColumn(type, list)];
    }),
  ) as unknown as StepInputColumns;
}

t.test('checkStepInput finds counts that do not add up and rows outside the table', (t) => {
  t.ok(checkStepInput(stepInput(), 4, 2));
  t.ok(checkStepInput(stepInput({ newNumLogprobs: [-1], newNumPromptLogprobs: [-1] }), 4, 2));
  const ids = Array<number>(128).fill(1);
  t.ok(checkStepInput(stepInput({ newNumLogprobIds: [128], logprobIds: ids }), 4, 2));
  const changes: Record<string, number[]>[] = [
    { newNumTokens: [4] },
    { newNumTokens: [-3] },
    { newTopK: [] },
    { newSeed: [1, 2] },
    { newRow: [2] },
    { newRow: [-1] },
    { newNumStopIds: [2] },
    { newNumLogitBias: [1] },
    { newNumAllowedIds: [1] },
    { badWordLength: [3] },
    { newNumLogprobIds: [1] },
    { newNumLogprobIds: [-1] },
    { logprobIds: [5] },
    { newNumBadWords: [2] },
    { newNumLogprobIds: [129], logprobIds: Array<number>(129).fill(1) },
    { newNumLogprobs: [-2] },
    { newNumPromptLogprobs: [-2] },
    { blockIndex: [] },
    { blockId: [-1] },
    { blockRow: [2] },
    { row: [0, 2] },
    { start: [4] },
    { start: [-1, 0] },
    { count: [0, 4] },
    { count: [1, 2] },
  ];
  for (const change of changes)
    t.throws(
      () => checkStepInput(stepInput(change), 4, 2),
      { name: 'WireError' },
      JSON.stringify(change),
    );
  t.throws(() => checkStepInput(stepInput(), 5, 2), /numTokens/);
  t.end();
});

t.test('checkStepOutput holds the answer to the step that it answers', (t) => {
  const output = (change: Record<string, number[]> = {}) => {
    const lists: Record<string, number[]> = {
      tokenId: [5, -1],
      rowFlags: [0, 0],
      logprobIndex: [0],
      logprob: [-1],
      logprobRank: [1],
      topCount: [2],
      topIds: [5, 6],
      topLogprobs: [-1, -2],
      ...change,
    };
    return Object.fromEntries(
      Object.entries(stepOutputColumns).map(([name, type]) => [
        name,
        makeColumn(type, lists[name] ?? []),
      ]),
    ) as unknown as StepOutputColumns;
  };
  t.ok(checkStepOutput(output(), 2));
  t.throws(() => checkStepOutput(output(), 3), { name: 'WireError' });
  for (const change of [
    { rowFlags: [0] },
    { logprobIndex: [2] },
    { promptLogprobIndex: [0] },
    { topCount: [1] },
    { topCount: [-2] },
    { topCount: [2, 0] },
    { topLogprobs: [-1] },
    { promptTopCount: [0] },
    { promptTopIds: [5], promptTopLogprobs: [-1] },
  ])
    t.throws(
      () => checkStepOutput(output(change), 2),
      { name: 'WireError' },
      JSON.stringify(change),
    );
  t.end();
});
