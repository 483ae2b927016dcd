// Flags of limits reach every process that keeps the limit: the frontend, the engine behind it, and
// the detokenizer, whom strangers ask.
import t from 'tap';
import { startServer } from './server.ts';

t.test('a raised limit is raised in every process, and a lowered one lowered', async (t) => {
  const server = await startServer(t, ['--max-stop-token-ids', '1100', '--max-messages', '1']);
  const post = (path: string, body: object) =>
    fetch(server.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  const message = { role: 'user', content: 'Hello' };
  const complete = (numIds: number) =>
    post('/v1/completions', {
      prompt: 'Hello',
      max_tokens: 1,
      stop_token_ids: Array.from({ length: numIds }, (_, id) => id % 100),
    });
  t.equal((await complete(1100)).status, 200);
  t.equal((await complete(1101)).status, 400);
  const chat = (numMessages: number) =>
    post('/v1/chat/completions', { messages: Array(numMessages).fill(message), max_tokens: 1 });
  t.equal((await chat(1)).status, 200);
  t.equal((await chat(2)).status, 400);
});
