// A reader that takes nothing holds back its own stream: no credit is granted, deltas are merged,
// and in the end the stream is given up.
import t from 'tap';
import { RequestError } from '../../../common/errors.ts';
import { defaultHttpTimeouts } from '../../../common/limits.ts';
import { startServer, type Submission } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const path = '/v1/completions';
const piece = 'x'.repeat(64 * 1024);
const impatient = { timeouts: { ...defaultHttpTimeouts, stallMs: 50 } };

/** Says pieces until no more credit comes back: the socket is full. */
async function fill(submission: Submission): Promise<number> {
  for (let said = 1; ; said++) {
    submission.say(piece);
    await new Promise((resolve) => setImmediate(resolve));
    if (submission.consumed.length < said) return said;
    if (said > 10_000) throw new Error('the socket never fills');
  }
}

t.test('credit comes back as the socket drains, and nothing is lost', async (t) => {
  const { client, port } = await startServer(t);
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.socket.pause();
  raw.post(path, { prompt: 'a', stream: true });
  const submission = await submitted;
  const numFilled = await fill(submission);
  const granted = submission.consumed.length;
  for (let i = 0; i < 50; i++) submission.say(`[${i}]`);
  submission.say('end', { finishReason: 'stop' });
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(submission.consumed.length, granted, 'no credit while the socket is full');
  raw.socket.resume();
  const text = await raw.until((received) => received.includes('[DONE]'));
  const texts = [...text.matchAll(/"text":"([^"]*)"/g)].map((match) => match[1]!);
  const markers = Array.from({ length: 50 }, (_, i) => `[${i}]`).join('');
  t.equal(texts.join(''), `${piece.repeat(numFilled)}${markers}end`);
  t.equal(texts.at(-1), `${markers}end`, 'what waited came as one chunk');
  const credited = submission.consumed.reduce((sum, { bytes }) => sum + bytes, 0);
  t.equal(credited, piece.length * numFilled + markers.length + 'end'.length);
});

t.test('a reader that stalls is given up', async (t) => {
  const { client, port, server } = await startServer(t, impatient);
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.socket.pause();
  raw.post(path, { prompt: 'a', stream: true });
  const submission = await submitted;
  await fill(submission);
  await submission.untilAborted();
  await server.idle();
  raw.socket.resume();
  await raw.closed();
  t.notMatch(raw.text, /\[DONE\]/);
});

t.test('a whole answer that nobody reads is given up', async (t) => {
  const { client, port, server } = await startServer(t, impatient);
  const large = piece.repeat(1024);
  client.script = (submission) => submission.say(large, { finishReason: 'stop' });
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.socket.pause();
  raw.post(path, { prompt: 'a' });
  await submitted;
  await server.idle();
  raw.socket.resume();
  await raw.closed();
  t.ok(raw.text.length < large.length, 'it did not arrive');
});

t.test('slow_reader from below closes a full socket', async (t) => {
  const { client, port, server, post } = await startServer(t);
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.socket.pause();
  raw.post(path, { prompt: 'a', stream: true });
  const submission = await submitted;
  await fill(submission);
  submission.fail(new RequestError('slow_reader', 'the reader is too slow'));
  await server.idle();
  raw.socket.resume();
  await raw.closed();
  t.notMatch(raw.text, /\[DONE\]/);
  client.script = (other) => other.say('fine', { finishReason: 'stop' });
  t.equal((await post(path, { prompt: 'a' })).status, 200, 'others go on');
});
