import t from 'tap';
import type { TokenBytes } from '../../common/text/token-bytes.ts';
import { finishIndex, RequestText } from '../../detokenizer/request-text.ts';
import { demoTokenizer, expectedText, newRequest, randomInts, smallTable } from './support.ts';

/** Runs ids through a request, taking text out at random moments; checks each delta as it goes. */
function run(
  table: TokenBytes,
  info: ReturnType<typeof newRequest>,
  ids: readonly number[],
  endsByStopToken: boolean,
  random: (n: number) => number,
) {
  const request = new RequestText(info, table);
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let text = '';
  const take = () => {
    const n = request.numSendableBytes;
    text += decoder.decode(request.text.view().subarray(0, n));
    request.clearSent(n);
  };
  let stopped = false;
  for (let i = 0; i < ids.length && !stopped; i++) {
    stopped = request.addToken(ids[i]!, endsByStopToken && i === ids.length - 1);
    if (random(3) === 0) take();
  }
  if (!stopped) request.end(endsByStopToken ? finishIndex.stop : finishIndex.length, -1, null);
  take();
  if (request.text.length > 0) throw new Error('text is left after the end');
  return { text, numTokens: request.numOutputTokens, stopStringIndex: request.stopStringIndex };
}

t.test('RequestText equals one-shot decoding cut at the stop string, under any chunking', (t) => {
  const small = smallTable();
  const big = demoTokenizer().table;
  const stops = [
    'ab',
    'ba',
    'aab',
    'é',
    ' a',
    'b b',
    '😀',
    '\n',
    'abab',
    'aaaa',
    '€a',
    '�',
    'the',
    ' wa',
  ];
  let numStopped = 0;
  for (let seed = 0; seed < 3000; seed++) {
    const random = randomInts(seed);
    const table = random(4) === 0 ? big : small;
    const narrow = random(2) === 0;
    const ids = Array.from({ length: random(40) }, () =>
      narrow && table === small ? 256 + random(8) : random(table.vocabSize + 1),
    );
    const info = newRequest(
      1,
      1,
      {
        stop: Array.from({ length: random(4) }, () => stops[random(stops.length)]!),
        includeStopStrInOutput: random(2) === 0,
        skipSpecialTokens: random(2) === 0,
      },
      { minTokens: random(3) === 0 ? random(20) : 0 },
    );
    const byStopToken = random(3) === 0;
    const expected = expectedText(table, info, ids, byStopToken);
    const found = run(table, info, ids, byStopToken, random);
    if (expected.stopStringIndex >= 0) numStopped++;
    if (JSON.stringify(found) !== JSON.stringify(expected)) {
      t.same(found, expected, `seed ${seed}: ${JSON.stringify({ ids, info })}`);
      break;
    }
  }
  t.ok(numStopped > 500, `stop strings were met (${numStopped})`);
  t.end();
});

t.test('RequestText goes on from the prompt', (t) => {
  const table = smallTable();
  const euro = [...Buffer.from('€')];
  const ids = (info: Parameters<typeof newRequest>[3], tokens: number[]) => {
    const request = new RequestText(newRequest(1, 1, {}, info), table);
    for (const id of tokens) request.addToken(id, false);
    request.end(finishIndex.length, -1, null);
    return Buffer.from(request.text.view()).toString();
  };
  const space = 257; // '▁a'
  t.equal(
    ids({ lastPromptIds: [] }, [space, space]),
    'a a',
    'a text does not begin with the space',
  );
  t.equal(ids({ lastPromptIds: [256] }, [space]), ' a', 'after a prompt the space is text');
  t.equal(ids({ lastPromptIds: [276] }, [space]), 'a', 'a skipped special token is no text');
  t.equal(ids({ lastPromptIds: [256, euro[0]!] }, [euro[1]!, euro[2]!]), '€', 'a character begun');
  t.equal(
    ids({ lastPromptIds: [256, euro[0]!] }, [256]),
    'a',
    'a character given up is the prompt’s',
  );
  t.equal(ids({ lastPromptIds: [256, euro[0]!] }, [euro[1]!, 256]), '\ufffda');
  t.end();
});

t.test('RequestText holds back what may become a stop string, and only that', (t) => {
  const table = smallTable();
  const [a, b] = [256, 258];
  const request = new RequestText(newRequest(1, 1, { stop: ['abab'] }), table);
  const sendable = [];
  for (const id of [a, a, b, a, a]) {
    request.addToken(id, false);
    sendable.push(request.numSendableBytes);
  }
  t.same(sendable, [0, 1, 1, 1, 4]);
  const including = new RequestText(
    newRequest(1, 1, { stop: ['abab'], includeStopStrInOutput: true }),
    table,
  );
  including.addToken(a, false);
  t.equal(including.numSendableBytes, 1, 'nothing can be taken back');
  t.end();
});
