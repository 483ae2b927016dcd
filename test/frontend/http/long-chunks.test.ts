// The first chunk of a stream that has a long prompt's logprobs: it is made a piece at a time, and
// what comes meanwhile waits behind it.
import t from 'tap';
import { RequestError } from '../../../common/errors.ts';
import { LogprobList } from '../../../frontend/logprob-list.ts';
import { readEvents, startServer, type Submission } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const numTokens = 4000;
const body = { prompt: 'b'.repeat(numTokens - 1), echo: true, logprobs: 3 };

interface Chunk {
  readonly choices: readonly [
    { readonly text: string; readonly index: number; readonly logprobs: { tokens: string[] } },
  ];
}

/** The same list, which tells of each entry whose text is made. */
function watched(list: LogprobList, onText: () => void): LogprobList {
  const textOf = list.textOf.bind(list);
  return Object.assign(list, {
    textOf: (entry: number) => {
      onText();
      return textOf(entry);
    },
  });
}

t.test('others have their turn between its pieces', async (t) => {
  const { client, post } = await startServer(t, { maxModelLen: 2 * numTokens });
  let numInTurn = 0;
  let most = 0;
  let numAll = 0;
  let counting = true;
  const turn = () => {
    numInTurn = 0;
    if (counting) setImmediate(turn);
  };
  turn();
  const count = () => {
    numAll++;
    most = Math.max(most, ++numInTurn);
  };
  client.script = (submission) => {
    submission.say('', { promptLogprobs: watched(submission.promptLogprobs(), count) });
    for (let index = 0; index < 4; index++) {
      submission.say('x', {}, index);
      submission.say('y', {}, index);
      submission.say('z', { finishReason: 'stop' }, index);
    }
  };
  const events = await readEvents(await post('/v1/completions', { ...body, n: 4, stream: true }));
  counting = false;
  t.equal(events.at(-1), '[DONE]');
  const chunks = events.slice(0, -1) as Chunk[];
  for (const index of [0, 1, 2, 3]) {
    const own = chunks.flatMap(({ choices }) => choices).filter((choice) => choice.index === index);
    t.equal(own.map(({ text }) => text).join(''), `${body.prompt}xyz`);
    const tokens = own.flatMap(({ logprobs }) => logprobs.tokens);
    t.same(tokens, ['<s>', ...Array<string>(numTokens - 1).fill('b'), 'x', 'y', 'z']);
  }
  t.ok(most < numAll / 4, `${most} of ${numAll} texts in one turn`);
});

t.test('an error behind half a chunk ends the connection and says nothing', async (t) => {
  const { client, port, server } = await startServer(t, { maxModelLen: 2 * numTokens });
  client.script = () => undefined;
  const submitted: Promise<Submission> = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.post('/v1/completions', { ...body, stream: true });
  const submission = await submitted;
  let numTexts = 0;
  const promptLogprobs = watched(submission.promptLogprobs(), () => {
    // More than its first column has, and less than all.
    if (++numTexts !== 3 * numTokens) return;
    setImmediate(() => submission.fail(new RequestError('internal', 'lost')));
  });
  submission.say('x', { promptLogprobs });
  await server.idle();
  await raw.closed();
  t.match(raw.text, /^HTTP\/1.1 200 /);
  t.notMatch(raw.text, /error|\[DONE\]/);
});
