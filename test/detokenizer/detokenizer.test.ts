import t from 'tap';
import { defaultReaderLimits as readers } from '../../common/limits.ts';
import { limits } from '../../detokenizer/frontend-outbox.ts';
import { Harness, type TextRow } from './harness.ts';
import { newRequest, smallTable } from './support.ts';

const table = smallTable();
const [a, b, ab] = [256, 258, 260];
const eos = table.vocabSize - 2;
const brief = ({ requestId, text, finish }: TextRow) => [requestId, text, finish];

t.test('Detokenizer sends a delta a step and one terminal row', (t) => {
  const h = new Harness(table);
  h.join(1);
  h.tokens([newRequest(1, 1)], [{ frontendId: 1, requestId: 1, tokenIds: [a] }]);
  h.tokens(
    [],
    [{ frontendId: 1, requestId: 1, tokenIds: [b, eos], finish: 'stop', stopTokenId: eos }],
  );
  const rows = h.take();
  t.same(rows.map(brief), [
    [1, 'a', 'none'],
    [1, 'b', 'stop'],
  ]);
  t.match(rows[1], { stopTokenId: eos, stopStringIndex: -1, numOutputTokens: 3, tokenIds: [] });
  t.equal(rows[1]!.columns.numPromptTokens[0], 3);
  t.equal(rows[1]!.columns.numCachedTokens[0], 1);
  t.equal(h.detokenizer.numOpen, 0);
  h.tokens([], [{ frontendId: 1, requestId: 1, tokenIds: [a] }]);
  t.same(h.take(), [], 'rows of ended requests are dropped');
  t.end();
});

t.test('Detokenizer ends a request that never had a token', (t) => {
  const h = new Harness(table);
  h.join(1);
  const error = { code: 'worker_lost', message: 'gone' } as const;
  h.tokens(
    [newRequest(1, 1), newRequest(1, 2, { stop: ['x'] })],
    [
      { frontendId: 1, requestId: 1, tokenIds: [], finish: 'abort' },
      { frontendId: 1, requestId: 2, tokenIds: [], finish: 'error', error },
    ],
  );
  const rows = h.take();
  t.same(rows.map(brief), [
    [1, '', 'abort'],
    [2, '', 'error'],
  ]);
  t.same(rows[1]!.error, error);
  t.equal(rows[0]!.error, null);
  t.end();
});

t.test('the stopping token shows no text, even where special tokens are shown', (t) => {
  const h = new Harness(table);
  h.join(1);
  h.tokens(
    [newRequest(1, 1, { skipSpecialTokens: false })],
    [{ frontendId: 1, requestId: 1, tokenIds: [a, eos, eos], finish: 'stop', stopTokenId: eos }],
  );
  t.same(h.take().map(brief), [[1, 'a</s>', 'stop']]);
  t.end();
});

t.test('a stop string ends the request at once; the earlier token wins', (t) => {
  const h = new Harness(table);
  h.join(1);
  const info = { stop: ['ba', 'ab'], returnTokenIds: true };
  h.tokens([newRequest(1, 1, info)], [{ frontendId: 1, requestId: 1, tokenIds: [a] }]);
  t.same(h.take().map(brief), [[1, '', 'none']], 'the a may be the beginning of ab');
  h.tokens([], [{ frontendId: 1, requestId: 1, tokenIds: [b, a, a] }]);
  const [row] = h.take();
  t.match(row, { text: '', finish: 'stop', stopStringIndex: 1, numOutputTokens: 2, tokenIds: [b] });
  t.same(h.stops, [{ frontendId: 1, requestId: 1, numOutputTokens: 2 }]);

  h.tokens(
    [newRequest(1, 2, info)],
    [{ frontendId: 1, requestId: 2, tokenIds: [ab], finish: 'length' }],
  );
  t.match(h.take()[0], { finish: 'stop', stopStringIndex: 1 }, 'it wins over length on its token');
  t.equal(h.stops.length, 1, 'the engine has ended it itself');

  h.tokens(
    [newRequest(1, 3, { stop: ['a'] })],
    [{ frontendId: 1, requestId: 3, tokenIds: [b, a], finish: 'stop', stopTokenId: a }],
  );
  t.match(
    h.take()[0],
    { text: 'b', finish: 'stop', stopStringIndex: -1, stopTokenId: a },
    'the stopping token has no text that could match',
  );
  t.end();
});

t.test('stop strings wait for min_tokens', (t) => {
  const h = new Harness(table);
  h.join(1);
  h.tokens(
    [newRequest(1, 1, { stop: ['ab'] }, { minTokens: 3 })],
    [{ frontendId: 1, requestId: 1, tokenIds: [a, b, a, b, a] }],
  );
  t.match(h.take()[0], { text: 'ab', finish: 'stop', numOutputTokens: 4 });
  t.end();
});

t.test('streamInterval, finalOnly and detokenize: false', (t) => {
  const h = new Harness(table);
  h.join(1);
  const one = (requestId: number, finish: 'none' | 'length' = 'none') =>
    ({ frontendId: 1, requestId, tokenIds: [a], finish }) as const;
  h.tokens(
    [
      newRequest(1, 1, { streamInterval: 3 }),
      newRequest(1, 2, { finalOnly: true, creditBytes: 0 }),
      newRequest(1, 3, { detokenize: false }),
    ],
    [one(1), one(2), one(3)],
  );
  for (let i = 0; i < 4; i++) h.tokens([], [one(1), one(2), one(3)]);
  h.tokens([], [one(1, 'length'), one(2, 'length'), one(3, 'length')]);
  const rows = h.take();
  t.same(
    rows.filter((r) => r.requestId === 1).map((r) => r.text),
    ['a', 'aaa', 'aa'],
  );
  t.same(
    rows.filter((r) => r.requestId === 2).map((r) => r.text),
    ['aaaaaa'],
  );
  const third = rows.filter((r) => r.requestId === 3);
  t.same(third.map((r) => r.text).join(''), '');
  t.same(
    third.flatMap((r) => r.tokenIds),
    [a, a, a, a, a, a],
  );
  t.end();
});

t.test('logprob entries carry their tokens’ bytes, prompt logprobs their positions', (t) => {
  const h = new Harness(table);
  h.join(1);
  h.tokens(
    [newRequest(1, 1, { stop: ['b'] }, { logprobs: 1 }), newRequest(1, 2)],
    [
      {
        frontendId: 1,
        requestId: 1,
        tokenIds: [a, b, a],
        logprobs: [
          [a, 0xe2],
          [b, a],
          [a, b],
        ],
        promptLogprobs: [
          [1, [ab]],
          [2, [a, eos]],
        ],
      },
      { frontendId: 1, requestId: 2, tokenIds: [b], logprobs: [[b]] },
    ],
  );
  const rows = h.take();
  const c = rows[0]!.columns;
  t.same(
    rows.map((r) => r.tokenIds),
    [[a, b], []],
    'cut after the token that completed the stop',
  );
  t.same([...c.logprobCount], [2, 2]);
  t.same([...c.logprobIds], [a, 0xe2, b, a]);
  t.same(
    [...c.logprobs],
    [a, 0xe2, b, a].map((id) => -id / 8),
  );
  t.same([...c.logprobRanks], [1, 2, 1, 2]);
  t.same([...c.logprobTextStart], [0, 1, 2, 3, 4]);
  t.same([...c.logprobText], [0x61, 0xe2, 0x62, 0x61]);
  t.same([...c.promptLogprobRow], [0, 0]);
  t.same([...c.promptLogprobPosition], [1, 2]);
  t.same([...c.promptLogprobIds], [ab, a, eos]);
  t.equal(Buffer.from(c.promptLogprobText).toString(), 'aba</s>');
  t.same([...c.promptLogprobTextStart], [0, 2, 3, 7]);
  t.end();
});

t.test('without credit deltas merge, and go when it comes', (t) => {
  const h = new Harness(table);
  h.join(1, 3);
  const row = (n: number) => ({ frontendId: 1, requestId: 1, tokenIds: Array<number>(n).fill(a) });
  h.tokens([newRequest(1, 1, { creditBytes: 1000 })], [row(2)]);
  t.same(h.take().map(brief), [[1, 'aa', 'none']]);
  h.tokens([], [row(2)]);
  t.same(h.take().map(brief), [[1, 'aa', 'none']], 'one byte is left: the row may overdraw it');
  h.tokens([], [row(1)]);
  h.tokens([], [row(1)]);
  t.same(h.take(), []);
  h.credit(1, 1);
  t.same(h.take(), [], 'the debt is paid first');
  h.credit(1, 1);
  t.same(h.take().map(brief), [[1, 'aa', 'none']]);
  t.end();
});

t.test('each request has credit of its own, and ids cost credit too', (t) => {
  const h = new Harness(table);
  h.join(1);
  const row = (requestId: number) => ({ frontendId: 1, requestId, tokenIds: [a] });
  h.tokens(
    [newRequest(1, 1, { creditBytes: 1, returnTokenIds: true }), newRequest(1, 2)],
    [row(1), row(2)],
  );
  h.tokens([], [row(1), row(2)]);
  t.same(h.take().map(brief), [
    [1, 'a', 'none'],
    [2, 'a', 'none'],
    [2, 'a', 'none'],
  ]);
  h.credit(1, 0, { 1: 4, 77: 1 });
  t.same(h.take().map(brief), [], 'a byte of text and an id of 4 are owed');
  h.credit(1, 0, { 1: 1 });
  t.same(h.take().map(brief), [[1, 'a', 'none']]);
  t.end();
});

t.test('a reader of ids alone is held back like any other', (t) => {
  const h = new Harness(table);
  h.join(1);
  const row = (requestId: number, num: number) => ({
    frontendId: 1,
    requestId,
    tokenIds: Array<number>(num).fill(a),
  });
  const news = [1, 2].map((id) => newRequest(1, id, { creditBytes: 8, detokenize: false }));
  h.tokens(news, [row(1, 2), row(2, 2)]);
  t.same(
    h.take().map(({ tokenIds }) => tokenIds.length),
    [2, 2],
  );
  h.tokens([], [row(1, 3), row(2, 3)]);
  t.same(h.take(), [], 'the account of each is used up');
  h.credit(1, 0, { 1: 8 });
  t.same(
    h.take().map(({ requestId, tokenIds }) => [requestId, tokenIds.length]),
    [[1, 3]],
  );
  h.tokens([], [row(2, readers.pendingBytes / 4)]);
  t.match(h.take(), [{ requestId: 2, finish: 'error', error: { code: 'slow_reader' } }]);
  t.end();
});

t.test("logprobs cost credit, the prompt's too", (t) => {
  const h = new Harness(table);
  h.join(1, 10_000);
  const first = {
    frontendId: 1,
    requestId: 1,
    tokenIds: [a],
    logprobs: [[a, b]],
    promptLogprobs: [[1, [ab]]] as const,
  };
  const cost = 1 + 4 + 3 * 12;
  h.tokens([newRequest(1, 1, { creditBytes: cost }, { logprobs: 1 })], [first]);
  const next = { frontendId: 1, requestId: 1, tokenIds: [a], logprobs: [[a]] };
  h.tokens([], [next]);
  t.equal(h.take().length, 1, 'the account is used up exactly');
  h.credit(1, 0, { 1: 1 });
  t.equal(h.take().length, 1);
  t.end();
});

t.test('a reader that leaves too much or too long ends with slow_reader, once', (t) => {
  const h = new Harness(table);
  h.join(1, 1);
  const much = Array<number>(readers.pendingBytes / 2).fill(ab);
  const row = (requestId: number, tokenIds: number[]) => ({ frontendId: 1, requestId, tokenIds });
  h.tokens([newRequest(1, 1), newRequest(1, 2), newRequest(1, 3)], [row(1, [a])]);
  t.same(h.take().map(brief), [[1, 'a', 'none']]);
  h.tokens([], [row(1, much), row(2, [a]), row(3, [a])]);
  t.same(h.take(), []);
  h.tokens([], [row(1, [a])]);
  t.match(h.take(), [{ requestId: 1, text: '', finish: 'error', error: { code: 'slow_reader' } }]);
  t.same(h.stops, [{ frontendId: 1, requestId: 1, numOutputTokens: much.length + 2 }]);
  h.wait(readers.stallMs - 1);
  h.tokens([], [{ ...row(3, [b]), finish: 'length' }]);
  t.same(h.take(), [], 'a terminal row with text waits for credit, too');
  h.wait(1);
  t.match(h.take(), [
    { requestId: 2, finish: 'error', error: { code: 'slow_reader' }, numOutputTokens: 1 },
    { requestId: 3, finish: 'error', error: { code: 'slow_reader' }, numOutputTokens: 2 },
  ]);
  t.equal(h.stops.length, 2, 'the engine had ended request 3 itself');
  t.equal(h.detokenizer.numOpen, 0);
  t.end();
});

t.test('a reader may be given less, or more, of both', (t) => {
  const h = new Harness(table, { pendingBytes: 8, stallMs: 50 });
  h.join(1, 1);
  const row = (requestId: number, tokenIds: number[]) => ({ frontendId: 1, requestId, tokenIds });
  h.tokens([newRequest(1, 1), newRequest(1, 2), newRequest(1, 3)], [row(1, [a])]);
  h.take();
  h.tokens([], [row(2, [ab, ab, ab, ab, ab]), row(3, [a])]);
  t.match(h.take(), [{ requestId: 2, finish: 'error', error: { message: /more than 8 bytes/ } }]);
  h.wait(50);
  t.match(h.take(), [{ requestId: 3, finish: 'error', error: { message: /for 0.05 s/ } }]);
  t.end();
});

t.test('a stall is over when something was sent', (t) => {
  const h = new Harness(table);
  h.join(1, 1);
  const row = { frontendId: 1, requestId: 1, tokenIds: [a] };
  h.tokens([newRequest(1, 1)], [row]);
  for (let i = 0; i < 3; i++) {
    h.tokens([], [row]);
    h.wait(readers.stallMs - 1);
    h.credit(1, 1);
  }
  t.same(h.take().map(brief), Array(4).fill([1, 'a', 'none']));
  t.end();
});

t.test('several rows of one request in a message are one', (t) => {
  const h = new Harness(table);
  h.join(1);
  const row = { frontendId: 1, requestId: 1, tokenIds: [a] };
  h.tokens([newRequest(1, 1)], [row, { ...row, finish: 'length' }]);
  t.same(h.take().map(brief), [[1, 'aa', 'length']]);
  t.end();
});

t.test('abort and error rows do not wait for credit', (t) => {
  const h = new Harness(table);
  h.join(1, 0);
  h.tokens([newRequest(1, 1)], [{ frontendId: 1, requestId: 1, tokenIds: [a] }]);
  h.tokens([], [{ frontendId: 1, requestId: 1, tokenIds: [a], finish: 'abort' }]);
  t.match(h.take(), [{ text: '', finish: 'abort', numOutputTokens: 2 }]);
  t.end();
});

t.test('what ended before the Attach is told with it; frontends beyond help are dropped', (t) => {
  const h = new Harness(table);
  h.join(1, null);
  h.tokens(
    [newRequest(1, 1), newRequest(1, 2)],
    [
      { frontendId: 1, requestId: 1, tokenIds: [a], finish: 'length' },
      { frontendId: 1, requestId: 2, tokenIds: [], finish: 'abort' },
    ],
  );
  h.attach(1, 100);
  t.same(h.take().map(brief), [
    [1, 'a', 'length'],
    [2, '', 'abort'],
  ]);
  h.join(2, null);
  h.join(3, 0);
  h.tokens([newRequest(3, 9999)], [{ frontendId: 3, requestId: 9999, tokenIds: [a] }]);
  for (let i = 0; i <= limits.maxUnpaidEnds; i++)
    h.tokens(
      [newRequest(2, i), newRequest(3, i)],
      [
        { frontendId: 2, requestId: i, tokenIds: [], finish: 'abort' },
        { frontendId: 3, requestId: i, tokenIds: [], finish: 'abort' },
      ],
    );
  t.same(h.dropped, [2, 3]);
  t.same(h.stops, [{ frontendId: 3, requestId: 9999, numOutputTokens: 1 }], 'what still ran');
  t.equal(h.detokenizer.numOpen, 0);
  t.end();
});

t.test('frontends and the engine may leave at any time', (t) => {
  const h = new Harness(table);
  h.join(1);
  h.join(2);
  const rows = [1, 2].map((frontendId) => ({ frontendId, requestId: 1, tokenIds: [a] }));
  h.tokens([newRequest(1, 1), newRequest(2, 1)], rows);
  h.take();
  h.detokenizer.frontendLeft(1);
  h.tokens([], rows);
  t.same(
    h.take().map((r) => r.peer),
    ['peer 2'],
  );
  h.detokenizer.peerGone('peer 2');
  h.tokens([], rows);
  t.same(h.take(), []);
  h.attach(2, 100);
  t.same(h.take().map(brief), [[1, 'a', 'none']], 'it came back in time');
  h.detokenizer.reset();
  h.detokenizer.checkIntegrity();
  t.equal(h.detokenizer.numOpen, 0);
  t.end();
});
