// JSON in pieces: the same bytes, none of them made in one go.
import t from 'tap';
import { inPieces, Sliced } from '../../../frontend/http/sliced-json.ts';
import { startServer } from './fakes.ts';

async function join(value: object): Promise<string> {
  let text = '';
  for await (const piece of inPieces(value)) text += piece;
  return text;
}

t.test('the bytes are those of JSON.stringify', async (t) => {
  const values: object[] = [
    {},
    [],
    { a: undefined, b: null, c: [], d: {}, 'é"': 'é"\n\ud800', e: [1, null, 'x'], f: [null, {}] },
    {
      choices: [
        { n: 1, list: [{ a: [{}] }] },
        { n: 2, none: undefined },
      ],
      usage: { total: 3 },
    },
    { empty: new Sliced(0, () => 1), list: new Sliced(3, (i) => (i === 0 ? null : { [i]: i })) },
    [{ deep: new Sliced(2, (i) => [i, 'x'.repeat(100_000)]) }],
  ];
  for (const value of values) t.equal(await join(value), JSON.stringify(value));
});

t.test('elements are made a piece at a time, and others have their turn between', async (t) => {
  let numMade = 0;
  let numTurns = 0;
  let counting = true;
  const count = () => {
    numTurns++;
    if (counting) setImmediate(count);
  };
  count();
  const element = 'x'.repeat(1022);
  const list = new Sliced(1000, () => {
    numMade++;
    return element;
  });
  let numPieces = 0;
  for await (const piece of inPieces({ list })) {
    numPieces++;
    t.ok(piece.length < 66 * 1024, `${piece.length}`);
    t.ok(numMade <= 64 * numPieces, `${numMade} are made after ${numPieces} pieces`);
    t.ok(numTurns >= numPieces, 'a turn of the event loop for each');
  }
  counting = false;
  t.equal(numMade, 1000);
});

for (const path of ['/v1/completions', '/v1/chat/completions'])
  t.test(`${path}: many logprobs are sent in pieces, few in one`, async (t) => {
    const { client, post } = await startServer(t, { maxModelLen: 4096 });
    client.script = (submission) => {
      submission.say('', { promptLogprobs: submission.promptLogprobs() });
      submission.say('a', { finishReason: 'stop' });
    };
    const ask = async (length: number) => {
      const prompt = 'b'.repeat(length);
      const messages = [{ role: 'user', content: prompt }];
      const of = path.includes('chat') ? { messages } : { prompt };
      const response = await post(path, { ...of, prompt_logprobs: 2 });
      t.match(response.headers.get('content-type'), 'application/json; charset=utf-8');
      const answer = (await response.json()) as Answer;
      const found = answer.prompt_logprobs ?? answer.choices[0]!.prompt_logprobs!;
      t.match(answer, { usage: { prompt_tokens: found.length } });
      t.equal(found[0], null);
      t.same(found.at(30), {
        98: { logprob: -1, rank: 2, decoded_token: 'b' },
        33: { logprob: -0.5, rank: 1, decoded_token: '!' },
      });
      return response.headers;
    };
    const few = await ask(100);
    t.ok(few.has('content-length'));
    const plain = await post(path, { prompt: 'a', messages: [{ role: 'user', content: 'a' }] });
    t.ok(plain.headers.has('content-length'));
    const many = await ask(2000);
    t.notOk(many.has('content-length'));
    t.ok(many.has('x-request-id'));
  });

t.test('a prompt’s logprobs in each of many choices are sent in pieces', async (t) => {
  const { client, post } = await startServer(t);
  client.script = (submission) => {
    submission.say('', { promptLogprobs: submission.promptLogprobs() });
    for (let i = 0; i < submission.request.n; i++) submission.say('a', { finishReason: 'stop' }, i);
  };
  const body = { prompt: 'b'.repeat(300), n: 8, prompt_logprobs: 2 };
  const response = await post('/v1/completions', body);
  t.notOk(response.headers.has('content-length'));
  const { choices } = (await response.json()) as Answer;
  t.equal(choices.length, 8);
  for (const { prompt_logprobs } of choices) {
    t.equal(prompt_logprobs!.length, 301);
    t.same(prompt_logprobs, choices[0]!.prompt_logprobs);
  }
});

interface Answer {
  readonly prompt_logprobs?: readonly unknown[];
  readonly choices: readonly { readonly prompt_logprobs?: readonly unknown[] }[];
}
