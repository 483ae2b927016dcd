// What the worker is told of a request, column by column.
import t from 'tap';
import { defaultSamplingParams, type SamplingParams } from '../../common/sampling-params.ts';
import { checkStepInput } from '../../common/wire/check-step.ts';
import type { StepInputColumns } from '../../common/wire/step.ts';
import { StepInputWriter } from '../../engine/step-input-writer.ts';
import { makeRequest } from './make-request.ts';

/** Requests that are new in one step, as the worker reads them. */
function write(...params: Partial<SamplingParams>[]): Record<string, number[]> {
  const writer = new StepInputWriter();
  writer.begin();
  params.forEach((sampling, row) => {
    const stopIds = row === 0 ? [2, 9] : [];
    const request = makeRequest({
      sampling: { ...defaultSamplingParams, ...sampling },
      ...{ stopIds, seed: BigInt(row), maxNumTokens: 50 + row },
    });
    request.row = row;
    writer.newRow(request);
    writer.row(request, 0, 2, 1);
  });
  return read(checkStepInput(writer.message(1, 0).columns, 2 * params.length));
}

const read = (columns: StepInputColumns): Record<string, number[]> =>
  Object.fromEntries(
    Object.entries(columns).map(([name, column]) => [name, [...column].map(Number)]),
  );

t.test('every parameter reaches the worker, beside those of others', (t) => {
  const c = write(
    {
      ...{ temperature: 0.5, topP: 0.75, topK: 40, minP: 0.25, minTokens: 3 },
      ...{ presencePenalty: 1, frequencyPenalty: -1, repetitionPenalty: 1.5 },
      ...{ logprobs: 4, promptLogprobs: 2 },
      logitBias: { ids: [5, 6], values: [-8, 8] },
      allowedTokenIds: [5, 6, 7],
      badWords: [[5], [6, 7]],
    },
    { logprobs: 0, logprobTokenIds: [11, 12], badWords: [[8]] },
    {},
  );
  t.match(c, {
    newRow: [0, 1, 2],
    newNumTokens: [2, 2, 2],
    newNumPromptTokens: [2, 2, 2],
    newTokenIds: [1, 2, 1, 2, 1, 2],
    newTemperature: [0.5, 1, 1],
    newTopP: [0.75, 1, 1],
    newTopK: [40, 0, 0],
    newMinP: [0.25, 0, 0],
    newPresencePenalty: [1, 0, 0],
    newFrequencyPenalty: [-1, 0, 0],
    newRepetitionPenalty: [1.5, 1, 1],
    newSeed: [0, 1, 2],
    newMinTokens: [3, 0, 0],
    newMaxNumTokens: [50, 51, 52],
    newNumLogprobs: [4, 0, -1],
    newNumPromptLogprobs: [2, -1, -1],
    newNumLogprobIds: [0, 2, 0],
    logprobIds: [11, 12],
    newNumStopIds: [2, 0, 0],
    stopIds: [2, 9],
    newNumLogitBias: [2, 0, 0],
    logitBiasIds: [5, 6],
    logitBias: [-8, 8],
    newNumAllowedIds: [3, 0, 0],
    allowedIds: [5, 6, 7],
    newNumBadWords: [2, 1, 0],
    badWordLength: [1, 2, 1],
    badWordIds: [5, 6, 7, 8],
  });
  t.end();
});

t.test(
  'temperature 0 takes the best token, whatever else is asked for; -1 turns top_k off',
  (t) => {
    const c = write(
      { temperature: 0, topP: 0.5, topK: 5, minP: 0.5 },
      { temperature: 1e-6, topK: 5 },
      { temperature: 0.001, topK: -1 },
    );
    t.match(c, {
      newTemperature: [0, 0, Math.fround(0.01)],
      newTopP: [1, 1, 1],
      newTopK: [0, 0, 0],
      newMinP: [0, 0, 0],
    });
    t.end();
  },
);

t.test('a step forgets what the one before it had', (t) => {
  const writer = new StepInputWriter();
  const request = makeRequest();
  request.row = 3;
  for (const block of [0, 0, 7, 8]) request.addBlock(block);
  request.numReleased = 2;
  for (const step of [1, 2]) {
    writer.begin();
    writer.newBlocks(request, step === 1 ? 0 : 3);
    writer.row(request, 40, 5, 0);
    const { numTokens, columns } = writer.message(step, 0);
    t.equal(numTokens, 5);
    const c = read(checkStepInput(columns, numTokens));
    t.match(c, { row: [3], start: [40], count: [5], flags: [0] });
    t.same(c['blockIndex'], step === 1 ? [2, 3] : [3], 'what was given back is not told');
    t.same(c['blockId'], step === 1 ? [7, 8] : [8]);
    t.equal(writer.numRows, 1);
  }
  t.end();
});
