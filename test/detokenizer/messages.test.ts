// How rows are gathered into messages, and what is too large for one.
import t from 'tap';
import type { TokenBytes } from '../../common/text/token-bytes.ts';
import { Harness } from './harness.ts';
import { newRequest, smallTable } from './support.ts';

/** One token, with a text of 150 bytes: most of what its logprobs cost is their text. */
const longToken: TokenBytes = {
  vocabSize: 1,
  start: Uint32Array.of(0, 150),
  bytes: new Uint8Array(150).fill(0x61),
  special: Uint8Array.of(0),
  stripFirstSpace: false,
};
const manyLogprobs = (requestId: number, numEntries: number) => ({
  frontendId: 1,
  requestId,
  tokenIds: [0],
  logprobs: [Array<number>(numEntries).fill(0)],
});
const wantsLogprobs = (requestId: number) =>
  newRequest(1, requestId, { creditBytes: 1 << 26 }, { logprobs: 1 });

t.test('all rows of a step for one frontend come in one message', (t) => {
  const h = new Harness(smallTable());
  h.join(1);
  h.join(2);
  const rows = [1, 2, 1, 2].map((frontendId, i) => ({ frontendId, requestId: i, tokenIds: [256] }));
  const news = rows.map(({ frontendId, requestId }) => newRequest(frontendId, requestId));
  h.tokens(news, rows);
  t.equal(h.take().length, 4);
  t.equal(h.numMessages, 2);
  t.end();
});

t.test('a row has the logprobs of its own tokens only', (t) => {
  const h = new Harness(smallTable());
  h.join(1);
  for (const [i, id] of [0x61, 0x62].entries()) {
    const row = { frontendId: 1, requestId: 1, tokenIds: [id], logprobs: [[id, 0x63 + i]] };
    const promptLogprobs = [[i + 1, [id]]] as const;
    h.tokens(i === 0 ? [newRequest(1, 1, {}, { logprobs: 1 })] : [], [{ ...row, promptLogprobs }]);
    const { tokenIds, columns: c } = h.take()[0]!;
    t.same(tokenIds, [id]);
    t.same([...c.logprobCount, ...c.logprobIds, ...c.logprobRanks], [2, id, 0x63 + i, 1, 2]);
    t.same([...c.logprobs], [-id / 8, -(0x63 + i) / 8]);
    t.same([...c.promptLogprobPosition, ...c.promptLogprobCount], [i + 1, 1]);
    t.same([...c.promptLogprobIds, ...c.promptLogprobs], [id, -id / 8]);
  }
  t.end();
});

t.test('a message that holds 64 MiB is sent before more is added', (t) => {
  const h = new Harness(longToken);
  h.join(1, 1 << 26);
  const ids = [1, 2, 3, 4, 5, 6];
  // 16.6 MB each.
  h.tokens(
    ids.map(wantsLogprobs),
    ids.map((id) => manyLogprobs(id, 100_000)),
  );
  const rows = h.take();
  t.same(
    rows.map(({ requestId }) => requestId),
    ids,
  );
  t.same(
    rows.map(({ columns }) => columns.requestId.length),
    [5, 5, 5, 5, 5, 1],
  );
  t.end();
});

t.test('logprobs that no message could carry end their request, and no other', (t) => {
  const h = new Harness(longToken);
  h.join(1);
  h.tokens([1, 2].map(wantsLogprobs), [manyLogprobs(1, 2 ** 20), manyLogprobs(2, 3)]);
  t.match(h.take(), [
    { requestId: 1, text: '', finish: 'error', error: { code: 'bad_request', param: 'logprobs' } },
    { requestId: 2, text: 'a'.repeat(150), finish: 'none' },
  ]);
  t.same(h.stops, [{ frontendId: 1, requestId: 1, numOutputTokens: 1 }]);
  t.end();
});

t.test(
  'an id beyond the tokenizer, of a padded row of the model, has logprobs and no text',
  (t) => {
    const table = smallTable();
    const h = new Harness(table);
    h.join(1);
    const row = {
      frontendId: 1,
      requestId: 1,
      tokenIds: [0x61],
      logprobs: [[0x61, table.vocabSize, 0]],
    };
    h.tokens([newRequest(1, 1, {}, { logprobs: 2 })], [row]);
    const { columns } = h.take()[0]!;
    t.same([...columns.logprobIds], [0x61, table.vocabSize, 0]);
    t.same([...columns.logprobText], [0x61, 0]);
    t.same([...columns.logprobTextStart], [0, 1, 1, 2]);
    t.end();
  },
);
