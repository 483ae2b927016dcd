import t from 'tap';
import type { TextService } from '../../common/text/text-service.ts';
import type { TextReply } from '../../common/wire/messages.ts';
import { TextCallServer } from '../../detokenizer/text-call-server.ts';

/** A server whose text service answers when the test says so, and what it has replied. */
function setUp() {
  const replies: (TextReply & { readonly peer: string })[] = [];
  let pending: (() => void)[] = [];
  const text = {
    encode: () =>
      new Promise((resolve) => {
        pending.push(() => resolve(Int32Array.of(7)));
      }),
    decode: () => Promise.reject(new Error('/home/someone: no such file')),
    applyChatTemplate: (messages: readonly unknown[]) =>
      Promise.resolve({ text: `${messages.length}`, tokenIds: new Int32Array(0) }),
  } as unknown as TextService;
  const server = new TextCallServer(text, 2, (peer, reply) => replies.push({ peer, ...reply }));
  const take = async () => {
    await new Promise(setImmediate);
    return replies.splice(0);
  };
  const answerAll = () => {
    for (const answer of pending) answer();
    pending = [];
  };
  const tokenize = (peer: string, callId: number) =>
    server.handle(peer, { kind: 'tokenize', callId, text: 'a', addSpecialTokens: true });
  return { server, take, answerAll, tokenize };
}

t.test('a peer may have 64 calls open at a time, whatever others do', async (t) => {
  const { server, take, answerAll, tokenize } = setUp();
  for (let round = 0; round < 3; round++) {
    for (let callId = 0; callId < 65; callId++) tokenize('a', callId);
    t.match(await take(), [{ callId: 64, error: { code: 'queue_full' } }], `round ${round}`);
    tokenize('b', 1);
    answerAll();
    const replies = await take();
    t.equal(replies.length, 65);
    t.same(replies.at(-1), {
      ...{ peer: 'b', kind: 'textReply', callId: 1, text: null, error: null },
      columns: { tokenIds: Int32Array.of(7) },
    });
  }
  for (let callId = 0; callId < 64; callId++) tokenize('a', callId);
  server.peerGone('a');
  tokenize('a', 70);
  t.same(await take(), [], 'one that comes back begins anew');
});

t.test('a call needs an id to be answered by', (t) => {
  const { tokenize } = setUp();
  for (const callId of [0, 2 ** 32 - 1]) tokenize('a', callId);
  for (const callId of [-1, 2 ** 32, 0.5])
    t.throws(() => tokenize('a', callId), { name: 'WireError' });
  t.end();
});

t.test('messages are bounded, and what fails here is not told', async (t) => {
  const { server, take } = setUp();
  const flags = { addGenerationPrompt: true, continueFinalMessage: false, addSpecialTokens: false };
  for (const callId of [2, 3]) {
    const messages = Array(callId).fill({ role: 'user', content: 'hi' });
    const call = { kind: 'applyChatTemplate', callId, messages, ...flags, templateArgs: {} };
    server.handle('a', call);
  }
  const tokenIds = Int32Array.of(1);
  const call = { kind: 'detokenize', callId: 4, skipSpecialTokens: true, columns: { tokenIds } };
  server.handle('a', call);
  const replies = await take();
  const of = (callId: number) => replies.find((reply) => reply.callId === callId);
  t.match(of(2), { text: '2', error: null });
  t.match(of(3)?.error, { param: 'messages', message: 'messages must be at most 2 messages' });
  t.same(of(4)?.error, { code: 'internal', message: 'the text service failed' });
});
