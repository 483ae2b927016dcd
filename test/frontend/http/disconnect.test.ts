// A client that goes away ends its request at once, in every phase and in both forms.
import t, { type Test } from 'tap';
import { fakeText, startServer } from './fakes.ts';
import { RawClient } from './raw-client.ts';

const path = '/v1/completions';

/** A request whose client has closed its own end, and was asked whether it is still there. */
async function halfClosed(t: Test, stream: boolean) {
  const { client, port } = await startServer(t);
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.post(path, { prompt: 'a', stream });
  raw.socket.end();
  const submission = await submitted;
  await raw.until((text) => text.includes('HTTP/1.1 100 Continue'));
  return { raw, submission };
}

for (const stream of [false, true]) {
  const form = stream ? 'a stream' : 'a whole answer';

  t.test(`${form}: before the first output`, async (t) => {
    const { client, port, server, url } = await startServer(t);
    client.script = () => undefined;
    const submitted = client.nextSubmission();
    const raw = await RawClient.open(port);
    raw.post(path, { prompt: 'a', stream });
    const submission = await submitted;
    t.equal(server.numOpen, 1);
    raw.leave();
    await submission.untilAborted();
    submission.say('late', { finishReason: 'abort' });
    await server.idle();
    t.equal(server.numOpen, 0);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    t.match(metrics, /^vllm:request_success_total\{.*finished_reason="abort"\} 1$/m);
    t.match(metrics, /^http_requests_total\{.*status="4xx",handler="\/v1\/completions"\} 1$/m);
  });

  t.test(`${form}: to a client that has closed its end`, async (t) => {
    const { raw, submission } = await halfClosed(t, stream);
    submission.say('the first words');
    if (stream) await raw.until((text) => text.includes('\n:\n\n'));
    submission.say(' and the last', { finishReason: 'stop' });
    await raw.closed();
    t.match(raw.text, /HTTP\/1\.1 200 OK[^]*the first words[^]* and the last/);
    t.equal(submission.aborted, false);
  });

  t.test(`${form}: a client that closes its end and then leaves`, async (t) => {
    const { raw, submission } = await halfClosed(t, stream);
    raw.leave();
    await submission.untilAborted();
    t.equal(submission.aborted, true);
  });

  t.test(`${form}: with HTTP/1.0 a client that has closed its end is gone`, async (t) => {
    const { client, port } = await startServer(t);
    client.script = () => undefined;
    const submitted = client.nextSubmission();
    const raw = await RawClient.open(port);
    raw.post(path, { prompt: 'a', stream }, '1.0');
    const submission = await submitted;
    raw.socket.end();
    await submission.untilAborted();
    t.equal(submission.aborted, true);
    await raw.closed();
    t.equal(raw.text, '');
  });

  t.test(`${form}: every prompt and choice is ended`, async (t) => {
    const { client, port } = await startServer(t);
    client.script = () => undefined;
    const [first, second] = [client.nextSubmission(), client.nextSubmission()];
    const raw = await RawClient.open(port);
    raw.post(path, { prompt: ['a', 'b'], n: 2, stream });
    const submissions = await Promise.all([first, second]);
    submissions[0].say('x', { finishReason: 'stop' }, 0);
    raw.leave();
    await Promise.all(submissions.map((submission) => submission.untilAborted()));
    t.ok(submissions.every((submission) => submission.aborted));
  });

  t.test(`${form}: while the prompt is being tokenized nothing is submitted`, async (t) => {
    const test = await startServer(t);
    let encode = () => undefined as unknown;
    const encoding = new Promise<void>((started) => {
      test.backend = {
        client: test.client,
        text: {
          ...fakeText,
          encode: (text, options) => {
            started();
            return new Promise((resolve) => {
              encode = () => {
                resolve(fakeText.encode(text, options));
              };
            });
          },
        },
      };
    });
    const raw = await RawClient.open(test.port);
    raw.post(path, { prompt: 'a', stream });
    await encoding;
    t.equal(test.server.numOpen, 1);
    raw.leave();
    await test.server.idle();
    encode();
    test.backend = { client: test.client, text: fakeText };
    t.equal((await test.post(path, { prompt: 'b' })).status, 200);
    t.equal(test.client.submissions.length, 1, 'only the second request was submitted');
  });
}

t.test('a stream: after the first chunk', async (t) => {
  const { client, port, server } = await startServer(t);
  client.script = (submission) => submission.say('first');
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.post(path, { prompt: 'a', stream: true });
  await raw.until((text) => text.includes('first'));
  raw.leave();
  const submission = await submitted;
  await submission.untilAborted();
  await server.idle();
  t.equal(submission.aborted, true);
});

t.test('while the body is being sent', async (t) => {
  const { port, post, client } = await startServer(t);
  const raw = await RawClient.open(port);
  raw.socket.write(
    `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n` +
      'content-length: 100\r\n\r\n{"prompt":',
  );
  raw.leave();
  t.equal((await post(path, { prompt: 'a' })).status, 200);
  t.equal(client.submissions.length, 1);
});

t.test('a finished request is not aborted by the close of its connection', async (t) => {
  const { client, port, server } = await startServer(t);
  const raw = await RawClient.open(port);
  raw.post(path, { prompt: 'a', stream: true });
  await raw.until((text) => text.includes('[DONE]'));
  raw.leave();
  await raw.closed();
  await server.idle();
  t.equal(client.submissions[0]!.aborted, false);
});

t.test('gone before the engine has taken the request: it is ended when it is taken', async (t) => {
  const { client, port, server } = await startServer(t);
  let accept = () => undefined as unknown;
  client.acceptance = new Promise((resolve) => (accept = resolve));
  client.script = () => undefined;
  const submitted = client.nextSubmission();
  const raw = await RawClient.open(port);
  raw.post(path, { prompt: 'a' });
  const submission = await submitted;
  raw.leave();
  await server.idle();
  t.equal(submission.aborted, false, 'there is no handle yet');
  accept();
  await submission.untilAborted();
  t.equal(submission.aborted, true);
});

t.test('other routes answer a client that has closed its end', async (t) => {
  const { port } = await startServer(t);
  const raw = await RawClient.open(port);
  raw.socket.end('GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n');
  await raw.closed();
  t.match(raw.text, /^HTTP\/1\.1 200 OK/);
});

t.test('pipelined requests are ended too', async (t) => {
  const { client, port, server } = await startServer(t);
  client.script = () => undefined;
  const [first, second] = [client.nextSubmission(), client.nextSubmission()];
  const raw = await RawClient.open(port);
  raw.post(path, { prompt: 'a' });
  raw.post(path, { prompt: 'b', stream: true });
  const submissions = await Promise.all([first, second]);
  raw.leave();
  await Promise.all(submissions.map((submission) => submission.untilAborted()));
  await server.idle();
  t.ok(submissions.every((submission) => submission.aborted));
});
