// The first chunk of a stream that has a long prompt's logprobs: it is made a piece at a time, and
// what comes meanwhile waits behind it.
import t, { type Test as TapTest } from 'tap';
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

/** The whole answer to a request for a long chunk, of which `opened` is told between two pieces. */
async function openChunk(t: TapTest, opened: (submission: Submission, raw: RawClient) => void) {
  const { client, port, server } = await startServer(t, { maxModelLen: 2 * numTokens });
  client.script = () => undefined;
  const submitted: Promise<Submission> = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.post('/v1/completions', { ...body, stream: true });
  const submission = await submitted;
  let numTexts = 0;
  const promptLogprobs = watched(submission.promptLogprobs(), () => {
    // Behind the first piece, which a socket takes at once.
    if (++numTexts === 1) setImmediate(() => opened(submission, raw));
  });
  submission.say('x', { promptLogprobs });
  await server.idle();
  await raw.closed();
  return raw.text;
}

t.test('an error behind half a chunk is one event behind the whole chunk', async (t) => {
  const text = await openChunk(t, (submission) => {
    submission.say('never sent');
    submission.fail(new RequestError('internal', 'lost'));
  });
  t.match(text, /^HTTP\/1.1 200 /);
  const said = text.slice(text.indexOf('data: '), text.lastIndexOf('}') + 1);
  // Between the two, where one piece of the response ends and the next begins.
  const [first = '', last = '', ...others] = said.split('data: ').slice(1);
  const chunk = first.replace(/\r\n[0-9a-f]+\r\n/g, '').trim();
  const { choices } = JSON.parse(chunk) as Chunk;
  t.equal(choices[0].text, `${body.prompt}x`);
  t.equal(choices[0].logprobs.tokens.length, numTokens + 1);
  t.match(JSON.parse(last), { error: { message: 'lost', code: 500 } });
  t.same(others, [], 'nothing else');
  t.notMatch(text, 'DONE');
});

t.test('a reader who leaves before the error is said leaves nothing open', async (t) => {
  const text = await openChunk(t, (submission, raw) => {
    submission.fail(new RequestError('internal', 'lost'));
    raw.leave();
  });
  t.notMatch(text, '"error"');
});
