// What the detokenizer is told of tokens, column by column.
import t from 'tap';
import { defaultSamplingParams, defaultTextParams } from '../../common/sampling-params.ts';
import { checkTokenOutputs } from '../../common/wire/check-outputs.ts';
import { fillColumns } from '../../common/wire/columns.ts';
import { stepOutputColumns } from '../../common/wire/step.ts';
import type { Request } from '../../engine/request.ts';
import { TokenOutputsBuilder } from '../../engine/token-outputs.ts';
import { makeRequest as make } from './make-request.ts';

const makeRequest = (requestId: number, numPromptTokens: number, leader: Request | null = null) =>
  make({
    requestId,
    promptTokenIds: Int32Array.from({ length: numPromptTokens }, (_, i) => i),
    sampling: { ...defaultSamplingParams, logprobs: 2, promptLogprobs: 2 },
    leader,
  });

t.test('the first row of a request brings what its text needs, once', (t) => {
  const builder = new TokenOutputsBuilder();
  const long = makeRequest(1, 20);
  const short = makeRequest(2, 3, long);
  for (const request of [long, short]) builder.token(request, 7, 'none', -1);
  const { newRequests, columns } = builder.take(1, 0);
  for (const { text } of newRequests) t.equal(text, defaultTextParams);
  t.match(newRequests, [
    { requestId: 1, numPromptTokens: 20, logprobs: 2, promptLogprobs: 2 },
    { requestId: 2, numPromptTokens: 3, logprobs: 2, promptLogprobs: null },
  ]);
  const ids = newRequests.map(({ lastPromptIds }) => lastPromptIds);
  t.same(ids, [
    [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
    [0, 1, 2],
  ]);
  t.same([...columns.numCachedTokens], [0, 0], 'not -1 of one that never ran');
  builder.token(long, 8, 'length', -1);
  const next = builder.take(2, 0);
  t.same([next.newRequests, next.errors], [[], []]);
  t.end();
});

t.test(
  'logprobs keep their ids and ranks; of ids that a request names only its own is known',
  (t) => {
    const builder = new TokenOutputsBuilder();
    const output = fillColumns(
      {
        logprobRank: Int32Array.of(9, 5),
        logprob: Float32Array.of(-1, -2),
        topCount: Int32Array.of(2, 1),
        topIds: Int32Array.of(11, 12, 13),
        topLogprobs: Float32Array.of(-0.5, -0.75, -3),
        promptLogprobPosition: Int32Array.of(1, 2),
        promptLogprob: Float32Array.of(-4, -5),
        promptLogprobRank: Int32Array.of(6, 8),
        promptTopCount: Int32Array.of(2, 0),
        promptTopIds: Int32Array.of(21, 22),
        promptTopLogprobs: Float32Array.of(-0.25, -0.5),
      },
      stepOutputColumns,
    );
    builder.token(makeRequest(1, 3), 7, 'none', -1);
    builder.logprobs(output, 7, 0, 0, true);
    builder.promptLogprobs(output, 31, 0, 0);
    builder.promptLogprobs(output, 32, 1, 2);
    builder.token(makeRequest(2, 3), 8, 'stop', 8);
    builder.logprobs(output, 8, 1, 2, false);
    const { columns } = builder.take(1, 0);
    const c = checkTokenOutputs(columns);
    t.same([...c.tokenIds, ...c.stopTokenId], [7, 8, -1, 8]);
    t.same([...c.logprobCount], [3, 2]);
    t.same([...c.logprobIds], [7, 11, 12, 8, 13]);
    t.same([...c.logprobs], [-1, -0.5, -0.75, -2, -3]);
    t.same([...c.logprobRanks], [9, 1, 2, 5, 0]);
    t.same([...c.promptLogprobRow, ...c.promptLogprobPosition], [0, 0, 1, 2]);
    t.same([...c.promptLogprobCount], [3, 1]);
    t.same([...c.promptLogprobIds], [31, 21, 22, 32]);
    t.same([...c.promptLogprobs], [-4, -0.25, -0.5, -5]);
    t.same([...c.promptLogprobRanks], [6, 1, 2, 8]);
    t.end();
  },
);
