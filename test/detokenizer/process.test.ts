import { join } from 'node:path';
import t from 'tap';
import { makeHello } from '../../common/wire/handshake.ts';
import { finishReasons, type TextOutputs, type TextReply } from '../../common/wire/messages.ts';
import type { AnyMessage } from '../../common/wire/transport.ts';
import { DetokenizerProcess, token, type Peer } from './process-support.ts';
import { demoTokenizer, newRequest, tokenOutputs, type Row } from './support.ts';

const ids = (text: string) => [...demoTokenizer().encode(text, { addSpecialTokens: false })];
const asText = (message: AnyMessage) => message as unknown as TextOutputs;
const textOf = ({ columns }: TextOutputs) => Buffer.from(columns.text).toString();

async function ack(engine: Peer, step: number): Promise<void> {
  await engine.next((m) => m.kind === 'ack' && m['step'] === step);
}

/** A message as an engine sends it. */
const step = (n: number, news: ReturnType<typeof newRequest>[], rows: Row[]) =>
  tokenOutputs(n, news, rows) as unknown as AnyMessage;

t.test('the detokenizer process', async (t) => {
  const process_ = await DetokenizerProcess.start();
  const engine = await process_.engine();

  await t.test('turns tokens into text for two frontends that do not see each other', async (t) => {
    const one = await process_.attached(engine, 1);
    const two = await process_.attached(engine, 2);
    const [hello, there] = [ids('hello wörld'), ids('once upon')];
    engine.send(
      step(
        1,
        [newRequest(1, 5), newRequest(2, 5)],
        [
          { frontendId: 1, requestId: 5, tokenIds: hello.slice(0, 1) },
          { frontendId: 2, requestId: 5, tokenIds: there, finish: 'length' },
        ],
      ),
    );
    await ack(engine, 1);
    engine.send(
      step(2, [], [{ frontendId: 1, requestId: 5, tokenIds: hello.slice(1), finish: 'length' }]),
    );
    const first = asText(await one.next('textOutputs'));
    const second = asText(await one.next('textOutputs'));
    t.equal(textOf(first) + textOf(second), 'hello wörld');
    t.same([...second.columns.finishReason], [finishReasons.indexOf('length')]);
    t.same([...second.columns.numOutputTokens], [hello.length]);
    t.equal(second.generation, 7);
    t.equal(textOf(asText(await two.next('textOutputs'))), 'once upon');
    t.same(two.heard, [], 'nothing else came');
    await ack(engine, 2);
  });

  await t.test('stops at a stop string and tells the engine where', async (t) => {
    const peer = await process_.attached(engine, 3);
    const tokens = [...ids('the end'), ...ids(' is near')];
    engine.send(
      step(
        3,
        [newRequest(3, 1, { stop: [' is'], returnTokenIds: true })],
        [{ frontendId: 3, requestId: 1, tokenIds: tokens }],
      ),
    );
    const { columns } = asText(await peer.next('textOutputs'));
    t.equal(Buffer.from(columns.text).toString(), 'the end');
    t.same([...columns.stopStringIndex], [0]);
    const stop = await engine.next('stopRequest');
    t.same(
      Object.values(stop.columns!).map((column) => Number(column[0])),
      [3, 1, columns.numOutputTokens[0]],
    );
    t.ok(columns.numOutputTokens[0]! < tokens.length);
    engine.send(
      step(4, [], [{ frontendId: 3, requestId: 1, tokenIds: ids('x'), finish: 'length' }]),
    );
    await ack(engine, 4);
    t.same(peer.heard, [], 'a later row of an ended request is dropped');
  });

  await t.test('answers frontends without a tokenizer', async (t) => {
    const peer = process_.connect();
    const reply = async () => (await peer.next('textReply')) as unknown as TextReply;
    const flags = {
      addGenerationPrompt: true,
      continueFinalMessage: false,
      addSpecialTokens: false,
      templateArgs: {},
    };
    peer.send({ kind: 'tokenize', callId: 1, text: 'a <|im_end|>', addSpecialTokens: true });
    const { tokenIds } = (await reply()).columns;
    t.notOk(tokenIds.includes(2), 'text stays text');
    peer.send({ kind: 'detokenize', callId: 2, skipSpecialTokens: true, columns: { tokenIds } });
    t.equal((await reply()).text, 'a <|im_end|>');
    const messages = [{ role: 'user', content: 'hi' }];
    peer.send({ kind: 'applyChatTemplate', callId: 3, messages, ...flags });
    const rendered = await reply();
    t.equal(rendered.text, '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n');
    t.equal(rendered.columns.tokenIds[0], 1);
    peer.send({ kind: 'tokenize', callId: 4, text: 7, addSpecialTokens: true });
    const refused = await reply();
    t.equal(refused.error?.code, 'bad_request');
    t.equal(refused.error?.param, 'text');
    peer.send({ kind: 'applyChatTemplate', callId: 5, messages: [{ role: 'user' }], ...flags });
    t.equal((await reply()).error?.param, 'messages[0].content');
    const nameless = [{ ...messages[0], name: 7 }];
    peer.send({ kind: 'applyChatTemplate', callId: 9, messages: nameless, ...flags });
    t.equal((await reply()).error?.param, 'messages[0].name');
    const allowed = { text: 'a <|im_end|>', addSpecialTokens: true, allowSpecialTokens: true };
    peer.send({ kind: 'tokenize', callId: 10, ...allowed });
    t.ok((await reply()).columns.tokenIds.includes(2), 'unless that is asked for');
    peer.send({ kind: 'tokenize', callId: 11, ...allowed, allowSpecialTokens: 1 });
    t.equal((await reply()).error?.param, 'allowSpecialTokens');
    const reserved = { ...flags, templateArgs: { messages: [] } };
    peer.send({ kind: 'applyChatTemplate', callId: 8, messages, ...reserved });
    t.match((await reply()).error, { code: 'bad_request', param: 'chat_template_kwargs' });
    const bytes = { ...flags, templateArgs: new Uint8Array(3) };
    peer.send({ kind: 'applyChatTemplate', callId: 12, messages, ...bytes });
    t.equal((await reply()).error?.param, 'templateArgs', 'bytes are no map');
    peer.send({ kind: 'tokenize', callId: 6, text: 'x'.repeat(1e6), addSpecialTokens: true });
    t.equal((await reply()).error?.code, 'context_length_exceeded');
    peer.send({
      kind: 'detokenize',
      callId: 7,
      skipSpecialTokens: true,
      columns: { tokenIds: Int32Array.of(1, -1) },
    });
    t.equal((await reply()).error?.param, 'tokens');
  });

  await t.test(
    'refuses strangers, and keeps an early Attach until the engine knows it',
    async (t) => {
      const wrongToken = process_.connect(makeHello('client', 0, 0, 'wrong'));
      t.match((await wrongToken.next('refused'))['message'], /token/);
      const worker = process_.connect(makeHello('worker', 0, 0, token));
      t.match((await worker.next('refused'))['message'], /worker/);

      const early = process_.connect();
      early.send({ kind: 'attach', frontendId: 9, attachKey: 'key 9', creditBytes: 1000 });
      await early.next('welcome');
      engine.send({ kind: 'frontendJoined', frontendId: 9, attachKey: 'key 9' });
      t.equal((await early.next('attached'))['frontendId'], 9);

      const thief = process_.connect();
      thief.send({ kind: 'attach', frontendId: 9, attachKey: 'key 8', creditBytes: 1000 });
      t.match((await thief.next('refused'))['message'], /frontend 9/);
      engine.send(
        step(
          5,
          [newRequest(9, 1)],
          [{ frontendId: 9, requestId: 1, tokenIds: ids('mine'), finish: 'length' }],
        ),
      );
      t.equal(textOf(asText(await early.next('textOutputs'))), 'mine');
    },
  );

  await t.test('a hostile frontend loses its own connection and nothing else', async (t) => {
    const good = await process_.attached(engine, 20);
    const empty = { requestId: new Uint32Array(0), bytes: new Uint32Array(0) };
    const hostile: AnyMessage[] = [
      { kind: 'credit', bytes: -1, columns: empty },
      { kind: 'credit', bytes: 1, columns: { ...empty, bytes: new Uint32Array(3) } },
      { kind: 'credit', bytes: 1 },
      {
        kind: 'credit',
        bytes: 1,
        columns: { requestId: new Int32Array(0), bytes: new Uint32Array(0) },
      },
      { kind: 'attach', frontendId: '20', attachKey: 'key 20', creditBytes: 1 },
      { kind: 'attach', frontendId: 20, attachKey: 20, creditBytes: 1 },
      { kind: 'attach', frontendId: 20, attachKey: 'key 20', creditBytes: 1e300 },
      { kind: 'tokenize', callId: 'x', text: 'a', addSpecialTokens: true },
      { kind: 'tokenOutputs', step: 1 },
      { kind: 'frontendJoined', frontendId: 20, attachKey: 'mine' },
      { kind: '__proto__' },
    ];
    for (const message of hostile) {
      const peer = process_.connect();
      await peer.next('welcome');
      peer.send(message);
      // Dropped: not even a good call is answered any more, while the next peer is served.
      peer.send({ kind: 'tokenize', callId: 1, text: 'a', addSpecialTokens: true });
      good.send({ kind: 'tokenize', callId: 2, text: 'a', addSpecialTokens: true });
      await good.next('textReply');
      t.notOk(
        peer.heard.some((m) => m.kind === 'textReply'),
        JSON.stringify(message),
      );
    }
    engine.send(
      step(
        6,
        [newRequest(20, 1)],
        [{ frontendId: 20, requestId: 1, tokenIds: ids('still here'), finish: 'length' }],
      ),
    );
    t.equal(textOf(asText(await good.next('textOutputs'))), 'still here');
  });

  await t.test('credit decides when text goes; a reader without any holds up nobody', async (t) => {
    const slow = await process_.attached(engine, 40, 3);
    const quick = await process_.attached(engine, 41);
    const both = (text: string): Row[] =>
      [40, 41].map((frontendId) => ({ frontendId, requestId: 1, tokenIds: ids(text) }));
    engine.send(step(50, [newRequest(40, 1), newRequest(41, 1)], both('once')));
    engine.send(step(51, [], both(' upon')));
    engine.send(step(52, [], both(' a')));
    for (const text of ['once', ' upon', ' a'])
      t.equal(textOf(asText(await quick.next('textOutputs'))), text);
    await ack(engine, 52);
    t.equal(textOf(asText(await slow.next('textOutputs'))), 'once');
    t.same(slow.heard, []);
    const columns = { requestId: Uint32Array.of(1), bytes: Uint32Array.of(8) };
    slow.send({ kind: 'credit', bytes: 8, columns });
    t.equal(textOf(asText(await slow.next('textOutputs'))), ' upon a', 'merged');
    const much = Array<number>(200_000).fill(ids(' upon')[0]!);
    engine.send(step(53, [], [{ frontendId: 40, requestId: 1, tokenIds: much }]));
    const ended = asText(await slow.next('textOutputs'));
    t.match(ended.errors, [{ row: 0, error: { code: 'slow_reader' } }]);
    t.same([...ended.columns.finishReason], [finishReasons.indexOf('error')]);
    const stop = await engine.next('stopRequest');
    t.equal(Number(stop.columns!['frontendId']![0]), 40);
  });

  await t.test('what another engine left in the socket is dropped', async (t) => {
    const peer = await process_.attached(engine, 50);
    const old = step(98, [newRequest(50, 1)], [{ frontendId: 50, requestId: 1, tokenIds: [5] }]);
    engine.send({ ...old, generation: 0 });
    engine.send(step(99, [], []));
    await ack(engine, 99);
    t.notOk(
      engine.heard.some((m) => m['step'] === 98),
      'neither handled nor acknowledged',
    );
    t.same(peer.heard, []);
  });

  await t.test(
    'a frontend that left is forgotten, and the engine’s death is passed on',
    async (t) => {
      const peer = await process_.attached(engine, 30);
      engine.send({ kind: 'frontendLeft', frontendId: 30 });
      engine.send(
        step(
          7,
          [newRequest(30, 1)],
          [{ frontendId: 30, requestId: 1, tokenIds: ids('x'), finish: 'length' }],
        ),
      );
      await ack(engine, 7);
      process_.tell({ kind: 'peerLost', role: 'engine', index: 0, generation: 1 } as AnyMessage);
      t.equal((await peer.next('peerLost'))['role'], 'engine');
      t.same(peer.heard, []);
    },
  );

  t.equal(await process_.stop(), 0);
});

t.test('a message’s name reaches the operator’s template', async (t) => {
  const folder = t.testdir({
    't.jinja': '{% for m in messages %}{{ m.name or "-" }}:{% endfor %}',
  });
  const process_ = await DetokenizerProcess.start({ chatTemplatePath: join(folder, 't.jinja') });
  const peer = process_.connect();
  peer.send({
    kind: 'applyChatTemplate',
    callId: 1,
    messages: [
      { role: 'user', content: 'a', name: 'Ann' },
      { role: 'user', content: 'b' },
      { role: 'user', content: 'c', name: null },
    ],
    addGenerationPrompt: false,
    continueFinalMessage: false,
    addSpecialTokens: false,
    templateArgs: {},
  });
  t.equal((await peer.next('textReply'))['text'], 'Ann:-:-:');
  t.equal(await process_.stop(), 0);
});

t.test(
  'the detokenizer process ends with 65 and the file’s name when there is no tokenizer',
  async (t) => {
    await t.rejects(
      DetokenizerProcess.start({ tokenizerPath: '/nonexistent', logLevel: 'error' }),
      /65.*\/nonexistent\/tokenizer.json|ended \(65\)/,
    );
  },
);
